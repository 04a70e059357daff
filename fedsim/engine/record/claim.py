"""One writer for one folder: a run directory, or a study's.

A claim is the file FOLDER/.lock. It is created in one step, on file systems without locks too, and names its holder,
who touches it three times a minute. A holder on this machine that has ended is succeeded at once; one elsewhere, when a
minute of waiting has heard nothing of it.
"""

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from errno import EACCES, ENOTDIR, EROFS
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from filelock import OwnerRecord, Timeout

from fedsim.core.errors import InputError, RunError
from fedsim.core.files import LEASE_S, lease

log = logging.getLogger("fedsim")

LOCK = ".lock"
_AT_ONCE_S = 0.2  # enough to succeed a holder that has ended
_HELD: set[Path] = set()  # by this process


class Claim:
    """A folder that only this process may write to; a context manager, which removes empty folders that it created."""

    def __init__(self, folder: Path, *, new: bool = False) -> None:
        """Claim a folder, and create it if it is missing.

        Args:
            folder: A run directory or a study's folder.
            new: It must not exist.

        Raises:
            FileExistsError: it exists, but is to be new.
            InputError: another process writes there, or it cannot be made.
        """
        self.folder = folder
        self._lock = lease(folder / LOCK)
        try:
            self._made = _make(folder, new)
            try:
                self._take()
            except BaseException:
                self._unmake()
                raise
        except FileExistsError:
            raise
        except OSError as error:
            raise InputError(f"--out {folder}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Release the folder to others."""
        _HELD.discard(self.folder.absolute())
        with suppress(OSError):  # the disk is gone or read-only; the next process will see that the holder is gone
            self._lock.release()
        self._unmake()

    def check(self) -> None:
        """Make sure that the claim still holds.

        Raises:
            RunError: its file was deleted, or another process has taken the folder over.
        """
        lost = self._lock.compromise
        if lost is not None and lost.reason != "refresh-failed":
            raise RunError(
                f"{self.folder / LOCK}: was deleted or taken over by another process; this one stops writing"
            )

    def _take(self) -> None:
        if not os.access(self.folder, os.W_OK):
            read_only = os.statvfs(self.folder).f_flag & os.ST_RDONLY
            raise OSError(EROFS, os.strerror(EROFS)) if read_only else OSError(EACCES, os.strerror(EACCES))
        if self.folder.absolute() not in _HELD and self._lock.is_lock_held_by_us:
            self._lock.break_lock()  # it could not be deleted on release
        try:
            self._lock.acquire(timeout=_AT_ONCE_S)
        except Timeout:
            self._wait_for(self._lock.owner)
        _HELD.add(self.folder.absolute())

    def _wait_for(self, holder: OwnerRecord | None) -> None:
        """Take over from a holder on another machine if it gives no sign of life."""
        if holder is None or _lives_here(holder):
            raise _refusal(self.folder, holder)
        log.info("%s: is held by %s; waiting for %.0f s to hear of it", self.folder, _holder_text(holder), LEASE_S)
        try:
            self._lock.acquire(timeout=1.5 * LEASE_S)
        except Timeout:
            raise _refusal(self.folder, holder) from None

    def _unmake(self) -> None:
        for folder in self._made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def claim_numbered(folder: Path) -> Claim:
    """A claim of `folder`, or of `folder-2`, `folder-3`, ... if it exists: the first that is free.

    Raises:
        InputError: it cannot be made.
    """
    number = 1
    while True:
        with suppress(FileExistsError):
            return Claim(folder if number == 1 else folder.with_name(f"{folder.name}-{number}"), new=True)
        number += 1


def check_unclaimed(folder: Path) -> None:
    """Refuse a folder that another process writes to.

    Raises:
        InputError: naming the process.
    """
    holder = lease(folder / LOCK).owner
    if holder and (_lives_here(holder) or not _is_here(holder)):
        raise _refusal(folder, holder)


def _make(folder: Path, new: bool) -> Sequence[Path]:
    """Create a folder; returns it and the parents that were created, innermost first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(ENOTDIR, f"{folder.parent} is a file") from error
    folder.mkdir(exist_ok=not new)
    return missing


def _is_here(holder: OwnerRecord) -> bool:
    return holder.hostname.partition("?")[0] == socket.gethostname()


def _lives_here(holder: OwnerRecord) -> bool:
    """Whether it is a process of this machine that can still write."""
    with suppress(psutil.Error):
        return _is_here(holder) and psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE
    return False


def _refusal(folder: Path, holder: OwnerRecord | None) -> InputError:
    if holder is None:
        return InputError(f"--out {folder}: {LOCK} there names no process; if nothing writes to the folder, delete it")
    return InputError(
        f"--out {folder}: {_holder_text(holder)} is writing there; wait for it, stop it, or choose another folder"
    )


def _holder_text(holder: OwnerRecord) -> str:
    host, since = holder.hostname.partition("?")[0], ""
    with suppress(psutil.Error):
        if _is_here(holder):
            begun = datetime.fromtimestamp(psutil.Process(holder.pid).create_time()).astimezone()
            since = f", running since {begun:%Y-%m-%d %H:%M:%S}"
    return f"process {holder.pid} on {host}{since}"


def claimed(out: str | Path | Claim, resume: bool) -> Claim:
    """The claim of a run directory, which must not exist unless a run is resumed.

    Raises:
        InputError: it exists, is a file, or another process writes there.
    """
    if isinstance(out, Claim):
        return out
    path = Path(out)
    try:
        return Claim(path, new=not resume)
    except FileExistsError:
        if not path.is_dir():
            raise InputError(f"--out {path}: is a file; choose a folder") from None
        check_unclaimed(path)
        remedy = "choose another folder, or --resume or --overwrite the run in it"
        raise InputError(f"--out {path}: exists; {remedy}") from None
