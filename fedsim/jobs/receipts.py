"""What was submitted from this machine: one small file a job, in the user's state folder."""

import difflib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from fedsim.errors import DamagedError, InputError
from fedsim.files import write_text
from fedsim.jobs.state import state_folder
from fedsim.jobs.submission import Job
from fedsim.jobs.target import Target
from fedsim.jobs.targets import find_target, source_of

_ID = r"^fedsim-[a-z0-9-]{1,38}$"


class Receipt(BaseModel):
    """That a job was submitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=_ID)]
    cluster: str
    """Its URL, or the path of its file."""
    kind: Literal["run", "study"]
    name: str
    out: Path
    """Where the run directory or the study's folder is, as the cluster sees it."""
    submitted: str
    """Date and time."""

    @property
    def shown(self) -> str:
        """The cluster as a person would name it."""
        return self.cluster if "://" in self.cluster else Path(self.cluster).stem


def write_receipt(target: Target, job: Job) -> None:
    """Note that a job was submitted."""
    now = datetime.now(UTC).astimezone().isoformat(" ", "seconds")
    receipt = Receipt(
        id=job.submission.id, cluster=source_of(target), kind=job.kind, name=job.name, out=job.submission.out,
        submitted=now,
    )  # fmt: skip
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text(folder / f"{receipt.id}.json", receipt.model_dump_json(indent=2) + "\n")


def receipts() -> list[Receipt]:
    """All of them, the oldest first.

    Raises:
        DamagedError: a file is none.
    """
    return sorted(map(_read, _folder().glob("*.json")), key=lambda receipt: (receipt.submitted, receipt.id))


def receipt_of(beginning: str) -> Receipt:
    """The receipt of a job, by a beginning of its id that no other has; `fedsim-` may be left out.

    Raises:
        InputError: no job begins so, or several do.
    """
    known = {receipt.id: receipt for receipt in receipts()}
    if beginning in known:
        return known[beginning]
    found = [job for job in known if beginning and job.startswith((beginning, f"fedsim-{beginning}"))]
    if len(found) == 1:
        return known[found[0]]
    if found:
        raise InputError(f"{beginning}: is the beginning of several jobs: {', '.join(found[:5])}")
    near = difflib.get_close_matches(f"fedsim-{beginning.removeprefix('fedsim-')}", known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see fedsim jobs list"
    raise InputError(f"{beginning!r:.60}: no such job; {hint}")


def state_of(receipt: Receipt, gone: set[str]) -> str:
    """How a job does, as its cluster tells now.

    Args:
        receipt: The job's.
        gone: Clusters that did not answer, which are not asked again; grows.
    """
    if receipt.cluster in gone:
        return "cluster gone"
    try:
        return find_target(receipt.cluster).status(receipt.id).state
    except InputError:
        gone.add(receipt.cluster)
        return "cluster gone"


def _folder() -> Path:
    return state_folder() / "jobs"


def _read(path: Path) -> Receipt:
    try:
        receipt = Receipt.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path}: is no receipt of a job; remove it") from error
    if path.stem != receipt.id:
        raise DamagedError(f"{path}: is no receipt of a job; remove it")
    return receipt
