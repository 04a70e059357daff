"""Outlives a driver and then kills what is left of its Ray: `python reaper.py FOLDER DRIVER`.

The driver holds the other end of stdin. A driver that is killed cannot clean up: most of Ray's processes exit with it,
but its two agents only after a minute, and its folder stays. This is a separate process without fedsim's imports, so
that it costs next to nothing.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_LOOK_EVERY_S, _LOOKS = 0.05, 200


def main(folder: Path, driver: int) -> None:
    """Wait for the end of stdin, kill all writers to `folder` but the driver and its children, and remove it."""
    sys.stdin.buffer.read()
    for _ in range(_LOOKS):
        left = [process for process in _writers(folder) if driver not in (process, _parent(process))]
        if not left:
            break
        for process in left:
            _kill(process)
        time.sleep(_LOOK_EVERY_S)
    shutil.rmtree(folder, ignore_errors=True)


def _writers(folder: Path) -> Iterator[int]:
    """Processes that have a file in the folder open for writing, as each of Ray's processes has its log."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(_is_written(file, folder) for file in (process / "fd").iterdir()):
                yield int(process.name)
        except OSError:  # another user's process, or one that has exited
            continue


def _is_written(file: Path, folder: Path) -> bool:
    return bool(file.lstat().st_mode & 0o200) and file.readlink().is_relative_to(folder)


def _parent(process: int) -> int | None:
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
