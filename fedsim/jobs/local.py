"""A Ray cluster that a script such as clusters/local.sh starts on this machine."""

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
    from fedsim.engine.place.node import Node


class Local(RayJobs):
    """The cluster of a script with the commands up, down and address; and nodes, if it knows what `up` would start."""

    def __init__(self, name: str, path: Path) -> None:
        """Args: the value of --cluster, and the script."""
        super().__init__(name, "")
        self.path = path

    def is_up(self) -> bool:
        """Whether the cluster is running."""
        return self._script("address").returncode == 0

    def nodes(self) -> "tuple[Node, ...] | None":
        """The nodes that are running, or those that `up` would start."""
        if self.is_up():
            return super().nodes()
        done = self._script("nodes")
        lines = [line.split() for line in done.stdout.splitlines()]
        if done.returncode or not lines or not all(len(line) == 3 and "".join(line).isdigit() for line in lines):
            return None
        return tuple(map(_node, range(1, len(lines) + 1), lines))

    def foresees(self) -> bool:
        """Whether the script says what `up` would start."""
        return self._script("nodes").returncode == 0

    def take_down(self) -> None:
        """Stop the cluster."""
        self._script("down")

    def bring_up(self, tell: Callable[[str], None]) -> None:
        """Start the cluster; it keeps running.

        Raises:
            RunError: the script fails; with its reason.
        """
        tell(f"starting {self.name}; stop it with: {shlex.join([str(self.path), 'down'])}")
        done = self._script("up")
        if done.returncode:
            raise RunError(f"--cluster {self.name}: {_reason_of(done.stderr)}")

    def _where(self) -> tuple[str, str]:
        done = self._script("address")
        lines = done.stdout.splitlines()
        if done.returncode or len(lines) != 2:
            raise InputError(f"--cluster {self.name}: {_reason_of(done.stderr)}")
        url, token = lines
        return url, Path(token).read_text(encoding="utf-8").strip()

    def _begins(self, submission: Submission) -> list[str]:
        """The job's command, wrapped so that its log and final status outlive the cluster."""
        keeping = [sys.executable, "-P", "-m", "fedsim.jobs.kept", submission.id]
        return [*keeping, str(Path(sys.executable).with_name("fedsim"))]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "FEDSIM_STATE": str(state_folder())}

    def _script(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run the script with this Python's Ray and fedsim's state folder."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = os.environ | {"PATH": path, "FEDSIM_STATE": str(state_folder())}
        call = ["bash", str(self.path), command]
        return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


def _node(number: int, amounts: list[str]) -> "Node":
    """A node from its cores and its memory for actors and for the object store [bytes]."""
    from fedsim.engine.place.labels import OF_RAY
    from fedsim.engine.place.node import Node

    cores, memory, store = map(int, amounts)
    name = f"node {number}"
    return Node(id=name, name=name, cpus=cores, actor_memory=memory, total_memory=memory + store, unknown_labels=OF_RAY)


def _reason_of(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else "its script printed neither an address nor a reason"
