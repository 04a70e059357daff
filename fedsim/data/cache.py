"""The cache of shards: what lies in it, and making room."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedsim.core.errors import DamagedError, InputError
from fedsim.core.files import sweep, writing
from fedsim.data.shard import Shard

_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A shard in the cache."""

    path: Path
    source: str
    """What it was made from: a folder or file, or the seed of phantoms; or what is wrong with it."""
    volumes: int
    """Number of volumes."""
    size: int
    """Size [bytes]."""
    made_days: float
    """Days since it was made."""
    used_days: float
    """Days since a federation was last assembled from it."""


def entries(cache: Path) -> list[Entry]:
    """Every shard in a cache, the longest unused first; what killed imports left there is deleted on the way.

    Raises:
        InputError: there is no such folder.
    """
    if not cache.is_dir():
        raise InputError(f"{cache}: no such folder; name a cache of shards (federation.cache)")
    sweep(cache)
    return sorted(_entries(cache), key=lambda entry: (-entry.used_days, entry.path))


def clean(cache: Path, days: float) -> list[Entry]:
    """Delete the shards not used for some days, and return them. A run that needs one makes it again.

    Raises:
        InputError: there is no such folder.
        WriteError: one may not be deleted.
    """
    old = [entry for entry in entries(cache) if entry.used_days >= days]
    for entry in old:
        with writing(entry.path):
            entry.path.unlink(missing_ok=True)
    return old


def note_use(shard: Path) -> None:
    """Remember that a shard, if it is there, was used just now."""
    with suppress(OSError):  # a cache may be another's
        os.utime(shard, (time.time(), shard.stat().st_mtime))


def _entries(cache: Path) -> Iterator[Entry]:
    now = time.time()
    for path in cache.glob("*.h5"):
        with suppress(FileNotFoundError):
            status = path.stat()
            source, volumes = _told(path)
            with suppress(OSError):  # to look is not to use
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            made, used = status.st_mtime, max(status.st_atime, status.st_mtime)
            yield Entry(
                path=path,
                source=source,
                volumes=volumes,
                size=status.st_size,
                made_days=(now - made) / _DAY_S,
                used_days=max(0.0, now - used) / _DAY_S,
            )


def _told(path: Path) -> tuple[str, int]:
    try:
        with Shard(path) as shard:
            return shard.source(), len(shard.volumes())
    except DamagedError:
        return "damaged, or not a shard", 0
