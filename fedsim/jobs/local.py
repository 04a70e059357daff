"""A Ray cluster that a script brings up on this machine, as clusters/local.sh does."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fedsim.errors import InputError, RunError
from fedsim.jobs.ray_jobs import RayJobs
from fedsim.jobs.state import state_folder


class Local(RayJobs):
    """The cluster of a script with the commands up, down and address."""

    def __init__(self, name: str, path: Path) -> None:
        """Args: what --cluster said, and the script."""
        super().__init__(name, "")
        self.path = path

    def bring_up(self, tell: Callable[[str], None]) -> None:
        """See to it that the cluster is up; it stays so.

        Raises:
            RunError: the script fails; with its reason.
        """
        if self._script("address").returncode == 0:
            return
        tell(f"bringing up {self.name}; end it with: {shlex.join([str(self.path), 'down'])}")
        done = self._script("up")
        if done.returncode:
            raise RunError(f"--cluster {self.name}: {_said(done.stderr)}")

    def _where(self) -> tuple[str, str]:
        done = self._script("address")
        lines = done.stdout.splitlines()
        if done.returncode or len(lines) != 2:
            raise InputError(f"--cluster {self.name}: {_said(done.stderr)}")
        url, token = lines
        return url, Path(token).read_text(encoding="utf-8").strip()

    def _fedsim(self) -> str:
        return str(Path(sys.executable).with_name("fedsim"))

    def _script(self, command: str) -> subprocess.CompletedProcess[str]:
        """What the script does, with this fedsim's Ray and state folder."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = os.environ | {"PATH": path, "FEDSIM_STATE": str(state_folder())}
        call = ["bash", str(self.path), command]
        return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


def _said(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else "its script says neither an address nor why"
