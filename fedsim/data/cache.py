"""The cache of shards: listing it and deleting what is unused."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedsim.core.errors import DamagedError, InputError
from fedsim.core.files import sweep, writing
from fedsim.data.shard import Shard

_DAY_S = 86_400.0


def check_cache(folder: Path) -> None:
    """Make sure that a cache is there or can be made: phantoms are written to it only when they are first read.

    Raises:
        InputError: it cannot be made.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    if there != folder.absolute() and not os.access(there, os.W_OK):
        raise InputError(f"federation.cache: {folder} cannot be created, as {there} cannot be written; choose another")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A shard in the cache."""

    path: Path
    source: str
    """Folder, file or phantom seed that it was made from; for a damaged shard, what is wrong with it."""
    volumes: int
    """Number of volumes."""
    size: int
    """Size [bytes]."""
    made_days: float
    """Days since it was made."""
    used_days: float
    """Days since a federation was last assembled from it."""


def entries(cache: Path) -> list[Entry]:
    """Every shard in a cache, least recently used first; also deletes the temporary files of killed imports.

    Raises:
        InputError: there is no such folder.
    """
    if not cache.is_dir():
        raise InputError(f"{cache}: no such folder; name a cache of shards (federation.cache)")
    sweep(cache)
    return sorted(_entries(cache), key=lambda entry: (-entry.used_days, entry.path))


def clean(cache: Path, days: float) -> list[Entry]:
    """Delete shards that were not used for some days, and return them. A run that needs one makes it again.

    Raises:
        InputError: there is no such folder.
        WriteError: a shard cannot be deleted.
    """
    old = [entry for entry in entries(cache) if entry.used_days >= days]
    for entry in old:
        with writing(entry.path):
            entry.path.unlink(missing_ok=True)
        shutil.rmtree(entry.path.with_suffix(""), ignore_errors=True)  # what was reconstructed from it
    return old


def note_use(shard: Path) -> None:
    """Record that a shard, if it exists, was used now."""
    with suppress(OSError):  # the cache may belong to another user
        os.utime(shard, (time.time(), shard.stat().st_mtime))


def _entries(cache: Path) -> Iterator[Entry]:
    now = time.time()
    for path in cache.glob("*.h5"):
        with suppress(FileNotFoundError):
            status = path.stat()
            source, volumes = _told(path)
            with suppress(OSError):  # listing does not count as use
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            made, used = status.st_mtime, max(status.st_atime, status.st_mtime)
            yield Entry(
                path=path,
                source=source,
                volumes=volumes,
                size=status.st_size + sum(file.stat().st_size for file in path.with_suffix("").glob("*.h5")),
                made_days=(now - made) / _DAY_S,
                used_days=max(0.0, now - used) / _DAY_S,
            )


def _told(path: Path) -> tuple[str, int]:
    try:
        with Shard(path) as shard:
            return shard.source(), len(shard.volumes())
    except DamagedError:
        return "damaged, or not a shard", 0
