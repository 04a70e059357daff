"""What was submitted from this machine: one small file per job, in the user's state folder."""

import difflib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from fedsim.core.errors import DamagedError, InputError, RunError, WriteError
from fedsim.core.files import write_text
from fedsim.jobs.common import fetch_shared
from fedsim.jobs.kept import keep, kept_log, kept_status
from fedsim.jobs.state import state_folder
from fedsim.jobs.target import ENDED, RUNS, Status, Target
from fedsim.jobs.targets import find_target, source_of

if TYPE_CHECKING:
    from fedsim.jobs.submission import Job

log = logging.getLogger("fedsim")

_ID = r"^fedsim-[a-z0-9-]{1,38}$"


class Receipt(BaseModel):
    """The record that a job was submitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=_ID)]
    cluster: str
    """Its URL, or the path of its file."""
    kind: Literal["run", "study", "array"]
    name: str
    out: Path
    """The run directory or the study's folder, as the cluster sees it."""
    submitted: str
    """Date and time of the submission."""

    @property
    def shown(self) -> str:
        """A short name of the cluster, for people."""
        return self.cluster if "://" in self.cluster else Path(self.cluster).stem


def write_receipt(target: Target, job: "Job") -> None:
    """Record that a job was submitted."""
    now = datetime.now(UTC).astimezone().isoformat(" ", "seconds")
    receipt = Receipt(
        id=job.submission.id, cluster=source_of(target), kind=job.kind, name=job.name, out=job.submission.out,
        submitted=now,
    )  # fmt: skip
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text(folder / f"{receipt.id}.json", receipt.model_dump_json(indent=2) + "\n")


def receipts() -> list[Receipt]:
    """All receipts, the oldest first.

    Raises:
        DamagedError: a file is not a receipt.
    """
    return sorted(map(_read, _folder().glob("*.json")), key=lambda receipt: (receipt.submitted, receipt.id))


def receipt_of(beginning: str) -> Receipt:
    """The receipt of a job, by an unambiguous prefix of its id; `fedsim-` may be left out.

    Raises:
        InputError: no job has this prefix, or several have.
    """
    known = {receipt.id: receipt for receipt in receipts()}
    if beginning in known:
        return known[beginning]
    found = [job for job in known if beginning and job.startswith((beginning, f"fedsim-{beginning}"))]
    if len(found) == 1:
        return known[found[0]]
    if found:
        raise InputError(f"{beginning}: matches several jobs: {', '.join(found[:5])}")
    near = difflib.get_close_matches(f"fedsim-{beginning.removeprefix('fedsim-')}", known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see fedsim jobs list"
    raise InputError(f"{beginning!r:.60}: no such job; {hint}")


def state_of(receipt: Receipt, gone: set[str]) -> str:
    """The status of a job, for a list.

    Args:
        receipt: The job's.
        gone: Clusters that did not answer and are not asked again; is added to.
    """
    if receipt.cluster in gone:
        known = _without_cluster(receipt).state
        return "cluster gone" if known == "unknown" else known
    try:
        status = status_of(receipt)
        telling = status.reason and (receipt.kind == "array" or status.state == "pending")
        return f"{status.state}: {status.reason}" if telling else status.state
    except RunError as error:  # the cluster is there, and refuses to say
        known = _without_cluster(receipt).state
        return f"unknown: {error}" if known == "unknown" else known
    except InputError:
        gone.add(receipt.cluster)
        return "cluster gone"


def status_of(receipt: Receipt) -> Status:
    """The status of a job: its final status if that is known here, else what its cluster says.

    Raises:
        InputError: its cluster does not answer, and no final status is known here.
    """
    return kept_status(receipt.id) or _asked(receipt, lambda target: target.status(receipt.id))


def wait_for(receipt: Receipt) -> Status:
    """Wait until a job has finished.

    Raises:
        InputError: its cluster does not answer, and no final status is known here.
    """
    return kept_status(receipt.id) or _asked(receipt, lambda target: target.wait(receipt.id))


def log_of(receipt: Receipt, follow: bool) -> Iterator[str]:
    """A job's output, in pieces; if its cluster is gone or has forgotten it, what is known here.

    Raises:
        InputError: neither its cluster nor this machine has a log.
    """
    told = False
    try:
        for piece in find_target(receipt.cluster).logs(receipt.id, follow):
            told = told or bool(piece)
            yield piece
    except InputError:
        if told or not (log := _log_here(receipt)):
            raise
        yield log
        return
    if not told:
        yield _log_here(receipt)


def fetch(receipt: Receipt, to: Path) -> None:
    """Copy the folder of a finished job to this machine.

    Raises:
        InputError: the job is running, its folder does not exist, or `to` exists.
    """
    if status_of(receipt).state in RUNS:
        raise InputError(f"{receipt.id}: is running; fetch it once it has finished (fedsim jobs wait), or stop it")
    try:
        target = find_target(receipt.cluster)
    except InputError as error:  # the cluster's file is gone
        fetch_shared(receipt.out, to, f"is not on this machine, and {error}")
    else:
        target.fetch(receipt.out, to)


def _asked(receipt: Receipt, ask: Callable[[Target], Status]) -> Status:
    """A job's status according to its cluster, kept if it is final; what is known here if the cluster knows nothing."""
    try:
        target = find_target(receipt.cluster)
        status = ask(target)
    except InputError:
        status = _without_cluster(receipt)
        if status.state == "unknown":
            raise
        return status
    if status.state == "unknown":
        return _without_cluster(receipt)
    if status.state in ENDED and kept_status(receipt.id) is None:
        try:
            keep(receipt.id, status, _log_there(receipt, target))
        except WriteError as error:  # it is asked again the next time
            log.warning("%s", error)
    return status


def _without_cluster(receipt: Receipt) -> Status:
    """A job's final status as far as it is known here: as recorded, or from a result newer than the submission."""
    kept = kept_status(receipt.id)
    if kept is not None:
        return kept
    since = datetime.fromisoformat(receipt.submitted).timestamp()
    result = receipt.out / ("report.html" if receipt.kind == "run" else "results.parquet")
    if not (result.is_file() and result.stat().st_mtime >= since):
        return Status("unknown")
    failed = _failed_points(receipt.out) if receipt.kind != "run" else []
    return Status("failed", f"{len(failed)} failed, the rest are done; {failed[0]}") if failed else Status("succeeded")


def _failed_points(folder: Path) -> list[str]:
    from fedsim.study.ended import read_failures
    from fedsim.study.outcome import is_answer

    return [f"{label}: {error}" for label, error in read_failures(folder).items() if not is_answer(label, error)]


def _log_here(receipt: Receipt) -> str:
    """The log of a job as kept here, or from its run directory."""
    path = receipt.out / "log.txt"
    there = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return kept_log(receipt.id) or there


def _log_there(receipt: Receipt, target: Target) -> str:
    try:
        return "".join(target.logs(receipt.id, follow=False))
    except (InputError, RunError):  # deleted by another process just now
        return _log_here(receipt)


def _folder() -> Path:
    return state_folder() / "jobs"


def _read(path: Path) -> Receipt:
    try:
        receipt = Receipt.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path}: is not a job receipt; delete it") from error
    if path.stem != receipt.id:
        raise DamagedError(f"{path}: is not a job receipt; delete it")
    return receipt
