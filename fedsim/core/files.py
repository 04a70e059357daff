"""Writing files so that a reader, a crash or a full disk never leaves half of one."""

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

LEASE_S = 60.0
"""Seconds that a lease's holder on another machine may be silent before somebody else succeeds it."""


def lease(path: Path) -> SoftFileLease:
    """A lock that is a file, made in one step: it needs no locks of the file system, and outlives no process."""
    return SoftFileLease(path, lease_duration=LEASE_S, thread_local=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; once on disk it is renamed to it, or removed when the block does not end well.

    Raises:
        WriteError: the disk is full, or may not be written to.
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
    """A path beside `folder`, to make a folder at; renamed to it, or removed when the block does not end well.

    Raises:
        WriteError: the disk is full or may not be written to, or `folder` has come to hold something.
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
    """A temporary path in the same folder that no other process and no other thread takes."""
    return path.absolute().with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{os.getpid()}@{_here()}.part")


def sweep(folder: Path) -> None:
    """Delete what `replacing` left half-written in a folder where its process was killed."""
    for path in folder.glob(".*.part"):
        with suppress(OSError):
            if _is_abandoned(path):
                path.unlink()


def _is_abandoned(part: Path) -> bool:
    """Whether the process that a temporary file is named after has ended; of another machine's, if it is a day old."""
    written, named = part.stat().st_mtime, re.search(r"\.(\d+)@(.+)\.part$", part.name)
    if named is None or named[2] != _here():
        return time.time() - written > _DAY_S
    try:
        maker = psutil.Process(int(named[1]))
        return maker.status() == psutil.STATUS_ZOMBIE or maker.create_time() > written + 1
    except psutil.NoSuchProcess:
        return True


def _here() -> str:
    """This machine, and the space in which its processes have their numbers: containers have one each."""
    numbers = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{numbers.stat().st_ino if numbers.exists() else 0:x}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file it was when the system refuses to write.

    Raises:
        WriteError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        raise WriteError(
            f"{path}: cannot be written ({reason}); make room there and repeat, a run with --resume"
        ) from error


@contextmanager
def reading_back(path: Path) -> Iterator[None]:
    """Tell a file that is gone from one that cannot be read just now.

    Raises:
        DamagedError: there is no such file, or it ends too early.
        RunError: the system refuses to read it.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(f"{path}: is missing") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        raise RunError(f"{path}: cannot be read ({reason})") from error


def absent(path: Path) -> str:
    """That a path is not there, what is there in its place, and what is probably meant; for the end of a message."""
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
    """Have what was written to a file, or which names a folder has, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8), replacing what was there."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write `content` as `as_json` has it."""
    write_text(path, as_json(content))


def as_json(content: Mapping[str, object]) -> str:
    """`content` as indented JSON with sorted keys: one text for one content."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
