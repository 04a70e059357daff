"""SLURM: the cluster's file is an sbatch script, and SLURM's own programs do the rest.

A job's small files and its log lie in the user's state folder, ~/.local/state/fedsim/slurm/ID or below FEDSIM_STATE.
All nodes must see it, as they see the run directory, the data and the environment that fedsim is installed in.
"""

import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.core.errors import InputError, RunError
from fedsim.core.files import replacing, write_text, writing
from fedsim.jobs.array import Array, array_in, files_of, named, option_of, status_of_array, write_array
from fedsim.jobs.common import as_bytes, ask, checked_files, checked_id, fetch_shared, planned_node, shown
from fedsim.jobs.slurm_queue import RUNNING, WAITING, content, ended, in_accounting, in_queue, status_in
from fedsim.jobs.state import state_folder
from fedsim.jobs.tail import Tail
from fedsim.jobs.target import RUNS, Content, Status, Submission

if TYPE_CHECKING:
    from fedsim.engine.place.node import Node

_LOOK_EVERY_S = 5.0
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LETTERS = {"nodes": "N", "cpus-per-task": "c"}
_OF_ARRAYS = "SLURM_ARRAY_TASK_ID"  # what a script reads that knows arrays


class Slurm:
    """A SLURM cluster to which this machine can submit."""

    out: Path | None = None

    def __init__(self, name: str, path: Path) -> None:
        """Args: the value of --cluster, and the sbatch script."""
        self.name = name
        self.path = path.absolute()

    def render(self, submission: Submission) -> str:
        """The command, and the files that would be written first."""
        self._check(submission)
        files = [shown(path, has) for path, has in sorted(_files(submission).items())]
        path = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
        return "\n".join([f"# command\n{path} {shlex.join(self._command(submission))}\n", *files])

    def nodes(self) -> "tuple[Node, ...] | None":
        """The nodes that the script's #SBATCH lines ask for; None if those leave out nodes, cores or memory."""
        nodes, cpus, memory = self._amount("nodes"), self._amount("cpus-per-task"), self._amount("mem", "M")
        gpus = self._amount("gpus-per-node") or 0
        if not (nodes and cpus and memory):  # --mem=0 means all memory of the node
            return None
        return tuple(planned_node(f"node {at + 1}", cpus, gpus, memory) for at in range(int(nodes)))

    def submit(self, submission: Submission) -> None:
        """Write the folders of the job and its tasks, and submit the script with sbatch."""
        self._check(submission)
        folder, files = _folder(submission.id), _files(submission)
        folders = [folder / str(number) for number in submission.tasks] or [folder]
        with writing(folder):
            for one in (folder, *folders):
                one.mkdir(mode=0o700, parents=True, exist_ok=True)
                for left in ("job", "status", "output.txt"):  # left by a finished job of the same id
                    (one / left).unlink(missing_ok=True)
        for path, has in files.items():
            with replacing(path) as temporary:
                temporary.write_bytes(as_bytes(has))
        if submission.tasks:
            write_array(folder, submission)
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        answer = ask(self._command(submission), env=environment).strip()
        number, _, _ = answer.partition(";")  # JOB;CLUSTER on federated sites
        if not number.isdigit():
            raise RunError(f"sbatch: printed {answer!r:.60} instead of a job number; see squeue --me")
        for one in folders:
            write_text(one / "job", f"{number}\n")

    def status(self, submission_id: str) -> Status:
        """A job's status from the queue; once SLURM has forgotten it, from accounting or the job's own exit status."""
        folder = _folder(submission_id)
        if array := array_in(folder):
            return status_of_array(submission_id, array)
        try:
            queued = in_queue(submission_id).get(None)
        except (InputError, RunError):  # no SLURM here; the script has recorded the exit status
            if content(folder / "status"):
                return ended(folder, "")
            raise
        number = content(folder / "job")
        return status_in(folder, queued, "" if queued else in_accounting([number]).get(number, ""))

    def logs(self, submission_id: str, follow: bool) -> Iterator[str]:
        """The file that SLURM writes the job's output to; of an array all lines of all tasks, each after its point."""
        folder = _folder(submission_id)
        array = array_in(folder)
        tails = _tails(array) if array else {"": Tail(folder / "output.txt")}
        more = True
        while more:
            more = follow and self.status(submission_id).state in RUNS  # before reading, so that no output is missed
            for label, tail in tails.items():
                yield from tail.pieces() if array is None else [named(tail.lines(last=not more), label)]
            if more:
                time.sleep(_LOOK_EVERY_S)

    def wait(self, submission_id: str) -> Status:
        """Wait until the job has finished."""
        # SLURM offers only `sbatch --wait`, at submission, and that polls as well; a dependent job would need a
        # separate node. So this polls, as seldom as sites ask of their users.
        while (status := self.status(submission_id)).state in RUNS:
            time.sleep(_LOOK_EVERY_S)
        return status

    def stop(self, submission_id: str) -> None:
        """Cancel a pending job; let a running one finish its round with a checkpoint; if asked twice, stop it."""
        queue = in_queue(submission_id).values()
        waiting, running = ([job.name for job in queue if job.word in words] for words in (WAITING, RUNNING))
        if waiting:  # first: else SLURM would start them in place of those that end
            ask(["scancel", *waiting])
        if running:
            ask(["scancel", "--batch", "--signal=TERM", *running])

    def fetch(self, out: Path, to: Path) -> None:
        """Copy a folder from the shared file system."""
        fetch_shared(out, to, "does not exist here; is it on a file system that this machine shares with the cluster?")

    def _command(self, submission: Submission) -> list[str]:
        folder, array = _folder(submission.id), [option_of(submission)] if submission.tasks else []
        escaped = str(folder).replace("%", "%%")  # else sbatch puts the number of the job, say, for %j
        output = f"{escaped}/{'%a/' if array else ''}output.txt"
        own = [f"--job-name={submission.id}", f"--chdir={folder}", f"--output={output}", *array]
        return ["sbatch", "--parsable", *own, str(self.path), str(folder), *submission.arguments]

    def _check(self, submission: Submission) -> None:
        """Refuse a file that is not a script, or for an array one that knows no arrays."""
        if _OF_ARRAYS not in self._script() and submission.tasks:
            remedy = "copy those lines from the slurm.sbatch that fedsim init writes"
            raise InputError(f"{self.path}: has no lines for {_OF_ARRAYS}, which --array needs; {remedy}")

    def _script(self) -> str:
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path}: cannot be read ({error}); it should be an sbatch script") from error
        if not text.startswith("#!"):
            raise InputError(f"{self.path}: is not an sbatch script; its first line should be #!/bin/bash")
        return text

    def _amount(self, option: str, unit: str = "") -> float | None:
        """The number in an #SBATCH line: the smaller one of MIN-MAX, without the type of a GPU."""
        short = f"|-{_LETTERS[option]} *" if option in _LETTERS else ""
        lines = re.findall(rf"(?m)^#SBATCH\b[^#\n]*[ \t](?:--{option}[= ]{short})(\S+)", self._script())
        if not lines:
            return None
        value = re.fullmatch(r"(?:\w+:)?(\d+)([KMGT]?)B?(?:-\d+)?", lines[-1])
        if value is None or bool(value[2]) > bool(unit):
            raise InputError(
                f"{self.path}: #SBATCH --{option}: {lines[-1]:.40} is not a number{' with K, M, G or T' * bool(unit)}"
            )
        return int(value[1]) * _UNITS.get(value[2] or unit, 1)


def _folder(submission_id: str) -> Path:
    return state_folder() / "slurm" / checked_id(submission_id)


def _files(submission: Submission) -> dict[Path, Content]:
    """The files of a job, or of all tasks of an array."""
    folder = _folder(submission.id)
    parts = {folder / str(number): files_of(task) for number, task in submission.tasks.items()}
    parts = parts or {folder: dict(checked_files(submission))}
    return {one / name: has for one, files in parts.items() for name, has in files.items()}


def _tails(array: Array) -> dict[str, Tail]:
    """The output of every task, by the point's name."""
    return {label: Tail(array.folder_of(number) / "output.txt") for number, label in array.labels.items()}
