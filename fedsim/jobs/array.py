"""SLURM's job arrays: a study as one job with a task a point.

The job's folder has a folder for each task, named by its number: with the point's files, the arguments of `fedsim run`
in the file `arguments`, one a line, and what a single job leaves in its folder. `array.json` says which point is which.
How tasks have ended is written into the study's folder, where `fedsim watch` shows it.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from fedsim.core.errors import InputError, RunError
from fedsim.core.files import write_json
from fedsim.core.text import counted
from fedsim.jobs.common import checked_files
from fedsim.jobs.slurm_queue import content, ended, in_accounting, in_queue, status_in
from fedsim.jobs.target import RUNS, Content, State, Status, Submission, Task

_FILE = "array.json"
_UNDER_WAY: tuple[State, ...] = ("running", "pending")
_NOT_WELL: tuple[State, ...] = ("failed", "stopped", "unknown")


class Array(NamedTuple):
    """An array that was submitted."""

    folder: Path
    """The job's."""
    study: Path
    """The study's folder."""
    labels: Mapping[int, str]
    """The points' names by the numbers of their tasks."""

    def folder_of(self, number: int) -> Path:
        """The folder of a task."""
        return self.folder / str(number)


def array_in(folder: Path) -> Array | None:
    """The array whose job has a folder; None if its job is none."""
    if not (folder / _FILE).is_file():
        return None
    known = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return Array(folder, Path(known["study"]), {int(number): label for number, label in known["tasks"].items()})


def write_array(folder: Path, submission: Submission) -> None:
    """Note which task of a job is which point."""
    labels = {str(number): task.label for number, task in submission.tasks.items()}
    write_json(folder / _FILE, {"study": str(submission.out), "tasks": labels})


def files_of(task: Task) -> dict[str, Content]:
    """What lies in the folder of a task.

    Raises:
        InputError: an argument has more than one line.
    """
    for word in task.arguments:
        if len(word.splitlines()) > 1:
            raise InputError(f"{word!r:.80}: has a line break; choose another --out")
    return {**checked_files(task), "arguments": "".join(f"{word}\n" for word in task.arguments)}


def option_of(submission: Submission) -> str:
    """sbatch's option for an array: `--array=1-3,7%2`."""
    numbers = sorted(submission.tasks)
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    ranges = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"--array={ranges}" + (f"%{submission.at_once}" if submission.at_once else "")


def status_of_array(submission_id: str, array: Array) -> Status:
    """The status of an array, which has ended when all of its tasks have; then failures are noted with the study."""
    statuses = {array.labels[number]: status for number, status in _statuses(submission_id, array).items()}
    whole = together(statuses)
    if whole.state not in RUNS and array.study.is_dir():
        _note(array.study, statuses)
    return whole


def _statuses(submission_id: str, array: Array) -> dict[int, Status]:
    folders = {number: array.folder_of(number) for number in array.labels}
    try:
        queue = in_queue(submission_id)
    except (InputError, RunError):  # no SLURM here; the script has recorded the exit statuses
        if all(content(folder / "status") for folder in folders.values()):
            return {number: ended(folder, "") for number, folder in folders.items()}
        raise
    jobs = {number: content(folder / "job") for number, folder in folders.items()}
    words = in_accounting(job for number, job in jobs.items() if number not in queue)
    return {
        number: status_in(folder, queue.get(number), words.get(f"{jobs[number]}_{number}", ""))
        for number, folder in folders.items()
    }


def together(statuses: Mapping[str, Status]) -> Status:
    """The status of an array, given that of each point."""
    points = counted(len(statuses), "point")

    def in_state(state: State) -> list[str]:
        return [label for label, status in statuses.items() if status.state == state]

    for state in _UNDER_WAY:
        if in_state(state):
            told: tuple[State, ...] = ("running", "failed", "stopped")
            others = [f"{len(in_state(other))} {other}" for other in told if in_state(other)]
            return Status(state, ", ".join([f"{len(in_state('succeeded'))} of {points} done", *others]))
    for state in _NOT_WELL:
        if labels := in_state(state):
            reason = statuses[labels[0]].reason
            first = f"{len(labels)} of {points} {state}: {labels[0]}" + (f": {reason}" if reason else "")
            return Status(state, first + _also(labels[1:]))
    return Status("succeeded")


def _also(labels: list[str]) -> str:
    more = f" and {len(labels) - 10} more" if len(labels) > 10 else ""
    return f"; also {', '.join(labels[:10])}{more}" if labels else ""


def _note(study: Path, statuses: Mapping[str, Status]) -> None:
    """Write the points that failed into the study's folder."""
    from fedsim.study.ended import read_failures, write_failures

    known = read_failures(study)
    failed = {label: status.reason for label, status in statuses.items() if status.state == "failed"}
    now = {label: error for label, error in known.items() if label not in statuses} | failed
    if now != known:
        write_failures(study, now)


def named(lines: Iterable[str], label: str) -> str:
    """Lines of a point's output, each after the point's name."""
    return "".join(f"{label}: {line}\n" for line in lines)
