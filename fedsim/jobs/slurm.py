"""SLURM: the cluster's file is an sbatch script, and SLURM's own programs do the rest.

A job's small files and its log lie in the user's state folder, ~/.local/state/fedsim/slurm/ID or below FEDSIM_STATE.
All nodes must see it, as they see the run directory, the data and the environment that fedsim is installed in.
"""

import codecs
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.core.errors import InputError, RunError
from fedsim.core.files import write_text, writing
from fedsim.jobs.common import ask, checked_files, checked_id, fetch_shared, planned_node
from fedsim.jobs.state import state_folder
from fedsim.jobs.target import RUNS, Status, Submission

if TYPE_CHECKING:
    from fedsim.engine.place.node import Node

_LOOK_EVERY_S = 5.0
_WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SUSPENDED",
                      "STOPPED", "SPECIAL_EXIT"})  # fmt: skip
_RUNNING = frozenset({"RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT"})
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LETTERS = {"nodes": "N", "cpus-per-task": "c"}
_INTERRUPTED = "130"  # fedsim's exit status after a signal, with a checkpoint written


class Slurm:
    """A SLURM cluster to which this machine can submit."""

    out: Path | None = None

    def __init__(self, name: str, path: Path) -> None:
        """Args: the value of --cluster, and the sbatch script."""
        self.name = name
        self.path = path.absolute()

    def render(self, submission: Submission) -> str:
        """The command, and the files that would be written first."""
        self._script()
        folder = _folder(submission.id)
        files = [f"# {folder / name}\n{text.rstrip()}\n" for name, text in sorted(checked_files(submission).items())]
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
        """Write the job's folder and submit the script with sbatch."""
        self._script()
        folder = _folder(submission.id)
        files = checked_files(submission)
        with writing(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in ("job", "status", "output.txt"):  # left by a finished job of the same id
                (folder / left).unlink(missing_ok=True)
        for name, text in files.items():
            write_text(folder / name, text)
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        answer = ask(self._command(submission), env=environment).strip()
        number, _, _ = answer.partition(";")  # JOB;CLUSTER on federated sites
        if not number.isdigit():
            raise RunError(f"sbatch: printed {answer!r:.60} instead of a job number; see squeue --me")
        write_text(folder / "job", f"{number}\n")

    def status(self, submission_id: str) -> Status:
        """A job's status from the queue; once SLURM has forgotten it, from accounting or the job's own exit status."""
        folder = _folder(submission_id)
        try:
            _, word, reason = _in_queue(submission_id)
        except (InputError, RunError):  # no SLURM here; the script has recorded the exit status
            if _content(folder / "status"):
                return _ended(folder, "")
            raise
        word = word or _in_accounting(folder)
        if word in _WAITING:
            return Status("pending", reason if reason not in {"None", "Priority"} else "")
        return Status("running") if word in _RUNNING else _ended(folder, word)

    def logs(self, submission_id: str, follow: bool) -> Iterator[str]:
        """The file that SLURM writes the job's output to."""
        path, at = _folder(submission_id) / "output.txt", 0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            more = follow and self.status(submission_id).state in RUNS  # before reading, so that no output is missed
            if path.is_file():
                with path.open("rb") as file:
                    file.seek(at)
                    while piece := file.read(2**20):
                        at += len(piece)
                        yield decoder.decode(piece)
            if not more:
                return
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
        number, word, _ = _in_queue(submission_id)
        if word in _WAITING:
            ask(["scancel", number])
        elif word in _RUNNING:
            ask(["scancel", "--batch", "--signal=TERM", number])

    def fetch(self, out: Path, to: Path) -> None:
        """Copy a folder from the shared file system."""
        fetch_shared(out, to, "does not exist here; is it on a file system that this machine shares with the cluster?")

    def _command(self, submission: Submission) -> list[str]:
        folder = _folder(submission.id)
        own = [f"--job-name={submission.id}", f"--chdir={folder}", f"--output={folder / 'output.txt'}"]
        return ["sbatch", "--parsable", *own, str(self.path), str(folder), *submission.arguments]

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


def _in_queue(submission_id: str) -> tuple[str, str, str]:
    """Number, state and reason of the newest job with this id; empty if SLURM has none, or no longer."""
    by_name = ["--me", f"--name={submission_id}", "--states=all"]
    queue = ask(["squeue", *by_name, "--noheader", "--format=%A|%T|%r"])
    jobs = [line.strip().split("|", 2) for line in queue.splitlines() if line.count("|") >= 2]
    number, word, reason = max(jobs, key=lambda job: int(job[0]), default=("", "", ""))
    return number, word, reason


def _in_accounting(folder: Path) -> str:
    """The state of a job that has left the queue; empty if the site keeps no accounting."""
    number = _content(folder / "job")
    if not number.isdigit():
        return ""
    try:
        state = ask(["sacct", "--allocations", "--noheader", "--parsable2", "--format=State", f"--jobs={number}"])
    except (InputError, RunError):
        return ""
    return next(iter(state.split()), "")  # CANCELLED by 1000


def _ended(folder: Path, word: str) -> Status:
    """The final status of a job: from fedsim's exit status, which the script records, or else from SLURM."""
    code = _content(folder / "status")
    if code == "0" or (not code and word == "COMPLETED"):
        return Status("succeeded")
    if code == _INTERRUPTED or (not code and word == "CANCELLED"):
        return Status("stopped")
    if not (code or word or _content(folder / "job")):
        return Status("unknown")
    errors = [line for line in _content(folder / "output.txt").splitlines() if line.startswith("fedsim: ")]
    slurm = f"SLURM says {word.lower().replace('_', ' ')}" if word else "SLURM has forgotten it"
    return Status("failed", errors[-1].removeprefix("fedsim: ") if errors else f"{slurm}; see {folder / 'output.txt'}")


def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
