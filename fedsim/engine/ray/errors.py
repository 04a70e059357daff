"""What Ray's errors mean for a run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fedsim.core.errors import InputError, RunError, WorkerLostError


@contextmanager
def explained(ray: ModuleType, client: str = "") -> Iterator[None]:
    """Turn exceptions that Ray raises in the block into fedsim's own.

    Args:
        ray: The module.
        client: The client that the actor is working for; empty if none.

    Raises:
        WorkerLostError: a process or a node was lost.
        RunError: the run cannot continue, or a client raised an exception.
        InputError: a client found the input to be wrong.
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
            "Ray's object store is full, and so is the disk that it spills to; free space in Ray's "
            "temporary folder, or start Ray with a larger --object-store-memory, and continue with --resume"
        )
    if isinstance(cause, errors.RayError):
        return RunError(f"Ray failed: {_line(cause)}; continue with --resume")
    return RunError(f"{type(cause).__name__}: {' '.join(str(cause).split())}")


def _line(error: Exception) -> str:
    """The essence of Ray's message in one line."""
    text = " ".join(str(error).split())
    if "low on memory" in text:
        used = re.search(r"[\d.]+ ?[KMGT]?B used / [\d.]+ ?[KMGT]?B", text)
        amount = f" ({used[0]})" if used else ""
        return f"killed because its node ran low on memory{amount}; engine.clients_per_actor=auto needs less"
    cause = re.search(r"The actor is dead because (.*?)\. ", text)
    who = re.search(r"pid: (\d+).*? ip: ([\w.:]+)", text)
    where = f"process {who[1]} on {who[2]}: " if who else ""
    return f"{where}{cause[1] if cause else text[:200]}"
