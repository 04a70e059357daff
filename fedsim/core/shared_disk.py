"""Files that another machine has just written, on a file system that machines share."""

import os
import re
import time
from contextlib import suppress
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_SHARED = ("nfs", "fuse", "lustre", "cifs", "smb", "ceph", "gpfs", "beegfs", "9p", "afs", "glusterfs", "orangefs")
"""How the types of shared file systems begin."""
_LATE_S, _LOOK_EVERY_S = 60.0, 0.1  # NFS remembers for up to a minute that a file was absent


def awaited(path: Path, within: float | None = None) -> Path:
    """The path of a file that should exist; where its file system is shared, waits until this machine sees it.

    Args:
        path: Written by another machine, perhaps.
        within: How long to wait at most [s]; by default a minute on a shared file system, elsewhere not at all.
    """
    if path.exists():
        return path
    within = (_LATE_S if is_shared(path) else 0.0) if within is None else within
    deadline = time.monotonic() + within
    while not path.exists() and time.monotonic() < deadline:
        with suppress(OSError):
            os.listdir(path.parent)  # noqa: PTH208 - so that the server is asked
        time.sleep(_LOOK_EVERY_S)
    return path


def is_shared(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether a path lies on a file system that other machines may write to.

    Args:
        path: Need not exist.
        mounts: The kernel's list of mounts.
    """
    text = mounts.read_text(encoding="utf-8", errors="replace") if mounts.is_file() else ""
    kinds = dict(_mounted(line) for line in text.splitlines())  # of those at the same place, the last one is on top
    place = next((folder for folder in (path.absolute(), *path.absolute().parents) if folder in kinds), None)
    return place is not None and kinds[place].startswith(_SHARED)


def _mounted(line: str) -> tuple[Path, str]:
    """Where a file system is mounted, and its type; the kernel writes spaces and the like as octal numbers."""
    mount, _, source = line.partition(" - ")
    folder = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), mount.split()[4])
    return Path(folder), source.split()[0]
