"""What SLURM knows of a job or of the tasks of an array, and what those leave behind in their folders."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fedsim.core.errors import InputError, RunError
from fedsim.jobs.common import ask
from fedsim.jobs.target import Status

WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SUSPENDED",
                     "STOPPED", "SPECIAL_EXIT"})  # fmt: skip
RUNNING = frozenset({"RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT"})
_INTERRUPTED = "130"  # fedsim's exit status after a signal or for lack of time, with a checkpoint written


class Queued(NamedTuple):
    """A job, or a task of an array, as the queue has it."""

    name: str
    """SLURM's name of it: 17, or 17_3."""
    word: str
    """SLURM's word for its state."""
    reason: str
    """Why it waits."""


def in_queue(submission_id: str) -> dict[int | None, Queued]:
    """The newest job of an id: under None, or each task of an array under its number; empty if SLURM has none.

    Raises:
        InputError: there is no SLURM here, or it does not answer.
        RunError: it refuses to.
    """
    by_name = ["--me", f"--name={submission_id}", "--states=all", "--array"]
    told = ask(["squeue", *by_name, "--noheader", "--format=%F|%K|%T|%r"])
    lines = [line.strip().split("|", 3) for line in told.splitlines() if line.count("|") >= 3]
    found: dict[int | None, Queued] = {}
    for job, task, word, reason in sorted(lines, key=lambda line: int(line[0])):  # the newest last
        number = int(task) if task.isdigit() else None
        found[number] = Queued(job if number is None else f"{job}_{task}", word, reason)
    return dict(sorted(found.items(), key=lambda item: item[0] or 0))


def in_accounting(jobs: Iterable[str]) -> dict[str, str]:
    """SLURM's words for the states of jobs, and tasks, that have left the queue; empty if the site keeps no accounting.

    Args:
        jobs: Their numbers; what is none is left out.
    """
    numbers = sorted({job for job in jobs if job.isdigit()}, key=int)
    if not numbers:
        return {}
    columns = ["--allocations", "--noheader", "--parsable2", "--format=JobID,State"]
    try:
        told = ask(["sacct", *columns, f"--jobs={','.join(numbers)}"])
    except (InputError, RunError):
        return {}
    rows = [line.partition("|") for line in told.splitlines()]
    return {job: next(iter(word.split()), "") for job, _, word in rows}  # CANCELLED by 1000


def status_in(folder: Path, queued: Queued | None, accounted: str = "") -> Status:
    """The status of a job or a task: from the queue; of one that has left it, from what is known otherwise.

    Args:
        folder: Where the script writes how it ended.
        queued: As the queue has it, if it does.
        accounted: The word of accounting.
    """
    word = queued.word if queued else accounted
    if queued and word in WAITING:
        return Status("pending", queued.reason if queued.reason not in {"None", "Priority"} else "")
    return Status("running") if word in RUNNING else ended(folder, word)


def ended(folder: Path, word: str) -> Status:
    """The final status of a job: from fedsim's exit status, which the script records, or else from SLURM."""
    code = content(folder / "status")
    if code == "0" or (not code and word == "COMPLETED"):
        return Status("succeeded")
    if code == _INTERRUPTED or (not code and word == "CANCELLED"):
        return Status("stopped")
    if not (code or word or content(folder / "job")):
        return Status("unknown")
    if not (code or word or (folder / "output.txt").exists()):  # it never began: it was cancelled while it waited
        return Status("stopped")
    errors = [line for line in content(folder / "output.txt").splitlines() if line.startswith("fedsim: ")]
    slurm = f"SLURM says {word.lower().replace('_', ' ')}" if word else "SLURM has forgotten it"
    return Status("failed", errors[-1].removeprefix("fedsim: ") if errors else f"{slurm}; see {folder / 'output.txt'}")


def content(path: Path) -> str:
    """The text of a file without surrounding blanks; empty if there is none."""
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
