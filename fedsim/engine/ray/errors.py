"""What Ray's errors mean for a run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fedsim.core.errors import InputError, RunError, WorkerLostError


@contextmanager
def explained(ray: ModuleType, client: str = "") -> Iterator[None]:
    """Turn what Ray raises inside into what it means.

    Args:
        ray: The module.
        client: Whom the process that is asked was working for.

    Raises:
        WorkerLostError: a process or a node is gone.
        RunError: the run cannot continue, or what a client raised.
        InputError: what a client found wrong with the input.
    """
    errors = ray.exceptions
    try:
        yield
    except errors.RayError as error:
        raise _meaning(ray, error.cause if isinstance(error, errors.RayTaskError) else error, client) from error


def _meaning(ray: ModuleType, cause: Exception, client: str) -> Exception:
    errors = ray.exceptions
    lost = (
        errors.RayActorError, errors.ActorUnschedulableError, errors.NodeDiedError, errors.WorkerCrashedError,
        errors.OutOfMemoryError, errors.ObjectLostError,
    )  # fmt: skip
    if isinstance(cause, RunError | InputError):
        return cause
    if isinstance(cause, lost):
        in_creation = "creation task" in str(cause)
        return RunError(_line(cause)) if in_creation else WorkerLostError(_line(cause), client)
    if isinstance(cause, errors.ObjectStoreFullError | errors.OutOfDiskError):
        return RunError(
            "Ray's object store is full, and so is the disk that it may use beyond that; make room in Ray's "
            "temporary folder, or start Ray with a larger --object-store-memory, and continue with --resume"
        )
    if isinstance(cause, errors.RayError):
        return RunError(f"Ray failed: {_line(cause)}; continue with --resume")
    return RunError(f"{type(cause).__name__}: {' '.join(str(cause).split())}")


def _line(error: Exception) -> str:
    """What matters of the paragraphs that Ray writes."""
    text = " ".join(str(error).split())
    if "low on memory" in text:
        used = re.search(r"[\d.]+ ?[KMGT]?B used / [\d.]+ ?[KMGT]?B", text)
        amount = f" ({used[0]})" if used else ""
        return f"killed since its node ran low on memory{amount}; engine.clients_per_actor=auto needs less"
    cause = re.search(r"The actor is dead because (.*?)\. ", text)
    who = re.search(r"pid: (\d+).*? ip: ([\w.:]+)", text)
    where = f"process {who[1]} on {who[2]}: " if who else ""
    return f"{where}{cause[1] if cause else text[:200]}"
