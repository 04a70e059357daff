"""A Ray cluster that a script brings up on this machine, as clusters/local.sh does."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.core.errors import InputError, RunError
from fedsim.jobs.ray_jobs import RayJobs
from fedsim.jobs.state import state_folder
from fedsim.jobs.target import Submission

if TYPE_CHECKING:
    from fedsim.engine.place.machine import NodeCapacity


class Local(RayJobs):
    """The cluster of a script with the commands up, down and address; and nodes, if it knows what `up` would give."""

    def __init__(self, name: str, path: Path) -> None:
        """Args: what --cluster said, and the script."""
        super().__init__(name, "")
        self.path = path

    def is_up(self) -> bool:
        """Whether the cluster is up."""
        return self._script("address").returncode == 0

    def rooms(self) -> "tuple[NodeCapacity, ...] | None":
        """The nodes that are up, or those that `up` would bring up."""
        if self.is_up():
            return super().rooms()
        done = self._script("nodes")
        lines = [line.split() for line in done.stdout.splitlines()]
        if done.returncode or not lines or not all(len(line) == 3 and "".join(line).isdigit() for line in lines):
            return None
        return tuple(map(_room, range(1, len(lines) + 1), lines))

    def foresees(self) -> bool:
        """Whether `rooms` knows what `up` will give."""
        return self._script("nodes").returncode == 0

    def take_down(self) -> None:
        """End the cluster."""
        self._script("down")

    def bring_up(self, tell: Callable[[str], None]) -> None:
        """Bring the cluster up; it stays so.

        Raises:
            RunError: the script fails; with its reason.
        """
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

    def _begins(self, submission: Submission) -> list[str]:
        """Fedsim, and what keeps its log and how it ends when the cluster is gone."""
        keeping = [sys.executable, "-P", "-m", "fedsim.jobs.kept", submission.id]
        return [*keeping, str(Path(sys.executable).with_name("fedsim"))]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "FEDSIM_STATE": str(state_folder())}

    def _script(self, command: str) -> subprocess.CompletedProcess[str]:
        """What the script does, with this fedsim's Ray and state folder."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = os.environ | {"PATH": path, "FEDSIM_STATE": str(state_folder())}
        call = ["bash", str(self.path), command]
        return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


def _room(number: int, amounts: list[str]) -> "NodeCapacity":
    """A node by its cores, and its bytes for actors and for the object store."""
    from fedsim.engine.place.machine import NodeCapacity
    from fedsim.engine.place.placement import Node

    cores, memory, store = map(int, amounts)
    name = f"node {number}"
    return NodeCapacity(Node(name, cores, 0, memory), memory + store, name=name)


def _said(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else "its script says neither an address nor why"
