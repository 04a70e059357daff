"""Watching a run from outside: the memory and the disk traffic of a process and all its descendants.

Memory is the proportional set size (PSS): a page that several processes map is divided among them, so that the sum is
the memory really in use. Shared memory is Ray's object store and is counted separately, not for the processes that map
it.
"""

import json
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil

Event = dict[str, Any]


@dataclass(frozen=True)
class Lap:
    """Resources that a run used between two moments."""

    driver_bytes: int = 0
    """Peak PSS of the first process, without shared memory."""
    total_bytes: int = 0
    """Peak PSS of all processes, with shared memory."""
    store_bytes: int = 0
    """Peak of shared memory: pages of the object store that have been touched."""
    processes: int = 0
    """Most at a time."""
    read_bytes: int = 0
    """Read from disks by the processes; what the page cache had does not count."""
    written_bytes: int = 0
    """Written to disks by the processes, if only to the page cache so far."""

    def joined(self, other: "Lap") -> "Lap":
        """Both combined: the higher peaks, the sum of the traffic."""
        values = {
            field.name: (sum if field.name in {"read_bytes", "written_bytes"} else max)(
                (getattr(self, field.name), getattr(other, field.name))
            )
            for field in fields(self)
        }
        return Lap(**values)

    def row(self) -> dict[str, float]:
        """In MB, for a result."""
        return {
            field.name.replace("_bytes", "_mb"): getattr(self, field.name) / (1e6 if "bytes" in field.name else 1)
            for field in fields(self)
        }


def memory(pid: int) -> tuple[int, int]:
    """PSS of a process [bytes] without shared memory, and of its shared memory.

    Raises:
        OSError: the process is gone.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kilobytes = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
    shared = kilobytes.get("Pss_Shmem", 0)
    return 1024 * (kilobytes["Pss"] - shared), 1024 * shared


def traffic(pid: int) -> tuple[int, int]:
    """Bytes that a process has read from disks and written to them.

    Raises:
        OSError: the process is gone.
    """
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    counts = {key: int(count) for key, _, count in (line.partition(":") for line in lines)}
    return counts["read_bytes"], counts["write_bytes"]


class Watch:
    """Samples a process, and all its descendants unless told otherwise, every N seconds, until closed.

    The kernel walks all pages of a process for its PSS and stops it meanwhile: a watch on processes of several GB, a
    few times a second, takes half a core and makes them slower.
    """

    def __init__(self, pid: int, interval_s: float = 1.0, *, descendants: bool = True) -> None:
        self._process, self._descendants = psutil.Process(pid), descendants
        self._peak = Lap()
        self._traffic: dict[int, tuple[int, int]] = {}
        self._told = (0, 0)
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._sample_on, args=(interval_s,), daemon=True)
        self._thread.start()

    def lap(self) -> Lap:
        """Resources used since the last lap, or since the start."""
        with self._lock:
            self._sample()
            (read_before, written_before), peak = self._told, self._peak
            read, written = (sum(each[way] for each in self._traffic.values()) for way in (0, 1))
            self._told, self._peak = (read, written), Lap()
        return replace(peak, read_bytes=read - read_before, written_bytes=written - written_before)

    def unnamed_bytes(self, folder: Path) -> int:
        """Bytes that unlinked files, which only the processes have open, take on the disk of a folder."""
        device, found = folder.stat().st_dev, {}
        for pid in list(self._traffic):
            with suppress(OSError):  # it ended
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):  # it was closed
                        file = link.stat()
                        if stat.S_ISREG(file.st_mode) and not file.st_nlink and file.st_dev == device:
                            found[file.st_ino] = 512 * file.st_blocks
        return sum(found.values())

    def close(self) -> None:
        """Stop sampling."""
        self._closed.set()
        self._thread.join()

    def _sample_on(self, interval_s: float) -> None:
        while not self._closed.wait(interval_s):
            with self._lock:
                self._sample()

    def _sample(self) -> None:
        found: dict[int, tuple[int, int]] = {}
        with suppress(psutil.NoSuchProcess):
            for process in [self._process, *(self._process.children(recursive=True) if self._descendants else ())]:
                with suppress(OSError, IndexError, KeyError):  # it ended meanwhile
                    found[process.pid] = memory(process.pid)
                    self._traffic[process.pid] = traffic(process.pid)
        own, shared = sum(own for own, _ in found.values()), sum(shared for _, shared in found.values())
        driver, _ = found.get(self._process.pid, (0, 0))
        self._peak = self._peak.joined(Lap(driver, own + shared, shared, len(found)))


@contextmanager
def driven(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], Iterator[Event]]]:
    """Run `drive.py` in a separate process and yield its events.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, str(Path(__file__).with_name("drive.py")), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, _events(process)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}")


def _events(process: subprocess.Popen[str]) -> Iterator[Event]:
    assert process.stdout is not None
    return (json.loads(line) for line in process.stdout if line.startswith('{"event"'))


@contextmanager
def watched(
    interval_s: float, *arguments: str | Path, descendants: bool = True
) -> Iterator[tuple[Watch, Iterator[Event]]]:
    """Like `driven`, with the watch on the process."""
    with driven(*arguments) as (process, events):
        watch = Watch(process.pid, interval_s, descendants=descendants)
        try:
            yield watch, events
        finally:
            watch.close()


def until_first_line(command: Sequence[str]) -> float:
    """Seconds until a command prints its first line."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - begun
        process.communicate()
    return seconds


def floor_seconds(clients: int, channels: int, processes: int, rounds: int = 2) -> float:
    """A round of `floor.py`, run by itself, so that it shares no memory with what is watched."""
    counts = {"n": clients, "channels": channels, "processes": processes, "rounds": rounds}
    command = [sys.executable, str(Path(__file__).with_name("floor.py"))]
    command += [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(result.stdout.splitlines()[0])["floor_seconds"])
