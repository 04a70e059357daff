"""Writing files atomically: a reader never sees half a file, and neither a crash nor a full disk leaves one."""

import errno
import glob
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import SoftFileLease

from fedsim.core.errors import DamagedError, RunError, WriteError, nearest

_SHOWN = 12

_DAY_S = 86_400.0

_ROOM = "make room there"
_REMEDIES = {
    errno.EACCES: "allow this user access",
    errno.EPERM: "allow this user access",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs, which have all files of this machine open,",
    errno.ENOLCK: "mount its file system with locks, or choose another folder",
    errno.ESTALE: "mount its file system again",
    errno.EIO: "have its disk checked",
    errno.ENOMEM: "use a machine with more memory",
}
"""What to do about an error of the machine, which is no bug."""
_GONE = "bring back its folder, which was deleted,"

LEASE_S = 60.0
"""Seconds that a lease's holder on another machine may be silent before another process takes over."""


def lease(path: Path) -> SoftFileLease:
    """A lock file, created atomically: needs no file-system locks, and does not outlive its process."""
    return SoftFileLease(path, lease_duration=LEASE_S, thread_local=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it once on disk, or removed if the block fails.

    Raises:
        WriteError: the disk is full or not writable.
    """
    temporary = _beside(path)
    with writing(path):
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A path beside `folder` for a new folder; renamed to it, or removed if the block fails.

    Raises:
        WriteError: the disk is full or not writable, or `folder` is no longer empty.
    """
    temporary = _beside(folder)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for part in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):
            if _is_abandoned(part):
                shutil.rmtree(part, ignore_errors=True)
        try:
            yield temporary
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A temporary path in the same folder, different for every call."""
    return path.absolute().with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{os.getpid()}@{_here()}.part")


def sweep(folder: Path) -> None:
    """Delete half-written files that `replacing` left in a folder when its process was killed."""
    for path in folder.glob(".*.part"):
        with suppress(OSError):
            if _is_abandoned(path):
                path.unlink()


def _is_abandoned(part: Path) -> bool:
    """Whether the process that a temporary file is named after has ended; for other machines, if it is a day old."""
    written, named = part.stat().st_mtime, re.search(r"\.(\d+)@(.+)\.part$", part.name)
    if named is None or named[2] != _here():
        return time.time() - written > _DAY_S
    try:
        maker = psutil.Process(int(named[1]))
        return maker.status() == psutil.STATUS_ZOMBIE or maker.create_time() > written + 1
    except psutil.NoSuchProcess:
        return True


def _here() -> str:
    """This machine and its PID namespace, which differs between containers."""
    numbers = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{numbers.stat().st_ino if numbers.exists() else 0:x}"


def link(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system has no hard links, copy it."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        sync(target)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file when the system refuses to write.

    Raises:
        WriteError: instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        remedy = _GONE if error.errno == errno.ENOENT else _REMEDIES.get(error.errno or 0, _ROOM)
        raise WriteError(
            f"{path}: cannot be written ({_reason(error)}); {remedy} and repeat, a run with --resume"
        ) from error


def trouble(error: OSError) -> str:
    """One line about an error of the machine and its remedy; empty if it may be a bug instead."""
    remedy = _REMEDIES.get(error.errno or 0)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{_reason(error)}; {remedy} and repeat, a run with --resume" if remedy else ""


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else " ".join(str(error).split())


@contextmanager
def reading_back(path: Path) -> Iterator[None]:
    """Distinguish a missing file from one that cannot be read at the moment.

    Raises:
        DamagedError: there is no such file, or it ends too early.
        RunError: the system refuses to read it.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(f"{path}: is missing") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({_reason(error)})") from error


def absent(path: Path) -> str:
    """The end of a message about a missing path: what its folder holds, and what is probably meant."""
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    missing = path.absolute().relative_to(there).parts[0]
    try:
        names = sorted(entry.name for entry in there.iterdir() if not entry.name.startswith("."))
    except OSError:
        names = []
    near = nearest(missing, names)
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    meant = f"; did you mean {str(there / near)!r}?" if near else ""
    return f"no such file or folder; {there} holds {shown or 'nothing'}{meant}"


def sync(path: Path) -> None:
    """Flush the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8), replacing the old content."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write `content` as JSON, see `as_json`."""
    write_text(path, as_json(content))


def as_json(content: Mapping[str, object]) -> str:
    """`content` as indented JSON with sorted keys: equal content gives equal text."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
