"""A host process's clocks and its memory."""

import ctypes
import os
import platform
import time
from functools import cache

import psutil

from fedsim.data.samples import SliceMemory
from fedsim.engine.host.messages import Row

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Let this process keep large blocks that it frees, since every step allocates the same ones again.

    By default glibc returns them to the system and pays for each page when it gets them again (6 % of a training step
    of a small network, benchmarks/freed_memory.py). Other C libraries are left unchanged.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(parameter, 1 << 30)


def here() -> Row:
    """This process and its private memory [bytes], without shared libraries and objects."""
    process = _process(os.getpid())
    memory = process.memory_info()
    return {"node": platform.node(), "pid": process.pid, "memory_bytes": memory.rss - getattr(memory, "shared", 0)}


@cache
def _process(pid: int) -> psutil.Process:
    """Kept, since creating one costs more than a query, and every client's turn queries it."""
    return psutil.Process(pid)


class Pace:
    """A timer that says when to report again."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        """Whether it is time; if so, the timer restarts."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


class Watch:
    """A stopwatch for the phases of a client's turn; reading its slices counts as load."""

    def __init__(self, slices: SliceMemory) -> None:
        self._slices, self._laps = slices, {"load": 0.0}
        self._last, self._read = time.perf_counter(), slices.seconds

    def lap(self, name: str) -> None:
        """Assign the time since the last lap to `name`."""
        now, read = time.perf_counter(), self._slices.seconds
        self._laps["load"] += read - self._read
        self._laps[name] = self._laps.get(name, 0.0) + now - self._last - (read - self._read)
        self._last, self._read = now, read

    def resume(self, seconds: float) -> None:
        """Continue after a pause of which only some seconds count as this client's."""
        self._last, self._read = time.perf_counter() - seconds, self._slices.seconds

    def seconds(self) -> Row:
        """The laps as columns of the ledger."""
        return {f"{name}_seconds": seconds for name, seconds in self._laps.items()}
