"""What Ray's errors mean for a run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fedsim.core.errors import InputError, RunError, WorkerLostError
from fedsim.core.text import bytes_text
from fedsim.engine.place.cgroups import memory_kills, memory_limit
from fedsim.engine.ray.token import refused


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


def unconnected(ray: ModuleType, error: Exception) -> str:
    """Why this process cannot connect to a cluster, in one line."""
    if isinstance(error, ray.exceptions.AuthenticationError):
        return refused(given=False)
    versions = re.findall(r"(Ray|Python): (\S+)", str(error))
    if str(error).startswith("Version mismatch") and len(versions) == 4:
        there, here = (", ".join(map(" ".join, pair)) for pair in (versions[:2], versions[2:]))
        return f"its software is {there}, and this environment's {here}; install the same on both"
    return f"no Ray cluster answers there ({' '.join(str(error).split())})"


def _meaning(ray: ModuleType, cause: Exception, client: str) -> Exception:
    errors = ray.exceptions
    lost = (
        errors.RayActorError, errors.ActorUnschedulableError, errors.NodeDiedError, errors.WorkerCrashedError,
        errors.OutOfMemoryError, errors.ObjectLostError,
    )  # fmt: skip
    if isinstance(cause, RunError | InputError):
        return cause
    if isinstance(cause, lost):
        if "creation task" in str(cause):
            return RunError(f"an actor did not start: {_last_line(cause)}")
        return WorkerLostError(_line(cause), client)
    if isinstance(cause, errors.ObjectStoreFullError | errors.OutOfDiskError):
        return RunError(
            "Ray's object store is full, and so is the disk that it spills to; free space in Ray's "
            "temporary folder, or start Ray with a larger --object-store-memory, and continue with --resume"
        )
    if isinstance(cause, errors.RayError):
        return RunError(f"Ray failed: {_line(cause)}; continue with --resume")
    return RunError(f"{type(cause).__name__}: {' '.join(str(cause).split())}")


def _last_line(error: Exception) -> str:
    """What Python says at the end of a traceback."""
    return str(error).strip().splitlines()[-1].strip()


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
    return f"{where}{cause[1] if cause else text[:200]}{_of_memory(text)}"


def _of_memory(text: str) -> str:
    """What the kernel did at the memory limit of this job, where Ray only knows that a process is gone."""
    killed = memory_kills() if "OOM killer" in text else 0
    if not killed:
        return ""
    limit = bytes_text(memory_limit())
    return f", perhaps because of this job's memory limit of {limit}, at which the kernel has killed {killed} so far"
