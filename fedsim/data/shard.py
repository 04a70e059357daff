"""The site shard: one HDF5 file with the k-space of a site's volumes at its matrix size.

Layout: dataset `kspace/<volume>` complex64 (slices, H, W), with attributes `subject`, `origin`, `contrast`, `slices`
(indices in the source) and `support` (H, W of the samples that are not zero-padding); dataset `left_out`, what was not
read, as JSON. Shards live in a cache, named by a digest of fedsim's version, the source's settings, the matrix and the
files' names, sizes and times; a new one is written under a lock, to a temporary name.
"""

import dataclasses
import hashlib
import json
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import psutil
from filelock import FileLock
from numpy.typing import NDArray

from fedsim.data.left_out import LeftOut, noting
from fedsim.data.source import Source, StoredVolume, Volume
from fedsim.data.values import settled, showing
from fedsim.errors import InputError
from fedsim.files import replacing
from fedsim.mri.geometry import kspace_at, square

_LAYOUT = 5
_ANY_SHAPE, _THINNEST = 1024, 8  # up to this side any shape will do, beyond it 8 to 1
_COPIES = 4  # of a volume, while it is transformed


class Shard:
    """An open shard; reads slices lazily."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise InputError(f"{path}: cannot be read as a shard ({error}); delete it and it is made again") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def volumes(self) -> list[StoredVolume]:
        """What the shard holds, in the source's order.

        Raises:
            InputError: it is not as fedsim writes it.
        """
        try:
            return [_describe(name, self._file["kspace"]) for name in self._file["kspace"]]
        except (AttributeError, KeyError, OSError, ValueError) as error:
            where = self._file.filename
            raise InputError(f"{where}: is not a shard of fedsim's; delete it and it is made again") from error

    def left_out(self) -> list[LeftOut]:
        """What was not read when the shard was made."""
        return [LeftOut(*entry) for entry in json.loads(self._file["left_out"].asstr()[()])]

    def kspace(self, volume: str, slices: slice | NDArray[np.intp] | list[int]) -> NDArray[np.complex64]:
        """Fully sampled k-space (slices, H, W) of some slices; indices must increase."""
        kspace: NDArray[np.complex64] = self._file["kspace"][volume][slices]
        return kspace


def _describe(name: str, group: h5py.Group) -> StoredVolume:
    """A volume; its name becomes a file's, and its k-space lies in this file."""
    own = isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Dataset)
    if not own or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(name)
    at = group[name].attrs
    slices, support = (tuple(at[key].tolist()) for key in ("slices", "support"))
    return StoredVolume(name, at["subject"], at["origin"], slices, support, at["contrast"])


def shard_path(source: Source, root: Path, cache: Path, matrix: tuple[int, int]) -> Path:
    """Where the source's shard is, or will be."""
    return cache / f"{source.format}-{_digest(source, root, matrix)}.h5"


def ensure_shard(source: Source, root: Path, cache: Path, matrix: tuple[int, int]) -> Path:
    """The path of the source's shard, imported first if the cache does not hold it; safe for concurrent runs.

    Raises:
        InputError: the source has no usable image, or one of its files is bad.
    """
    path = shard_path(source, root, cache, matrix)
    if not path.exists():
        _make(cache)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                write_shard(source, root, matrix, path)
    return path


def write_shard(source: Source, root: Path, matrix: tuple[int, int], path: Path) -> None:
    """Import a source into a shard, under a temporary name until it is whole.

    Raises:
        InputError: the source has no usable image, or one of its files is bad.
    """
    _make(path.parent)
    with replacing(path) as temporary:
        _write(source, root, matrix, temporary)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"federation.cache: {folder} cannot be made ({error.strerror}); choose another") from error


@cache
def _version() -> str:
    return version("fedsim")


def _digest(source: Source, root: Path, matrix: tuple[int, int]) -> str:
    files = [(str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in source.files(root)]
    where = str(root.resolve()) if files else ""
    settings = source.model_dump(mode="json")
    key = [_LAYOUT, _version(), settings, list(matrix), where, files]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def _write(source: Source, root: Path, matrix: tuple[int, int], path: Path) -> None:
    with h5py.File(path, "w") as file, noting(root) as left_out:
        group = file.create_group("kspace", track_order=True)
        for volume in source.volumes(root):
            if volume.name in group:
                raise InputError(f"{volume.origin}: a second volume named {volume.name}; names must differ")
            volume = settled(volume, source, root)  # noqa: PLW2901
            kept = showing(volume, root)
            if kept:
                _check_room(volume, len(kept))
                images = square(volume.images[kept])
                data = group.create_dataset(volume.name, data=kspace_at(images, matrix), chunks=(1, *matrix))
                support = [min(images.shape[-1], side) for side in matrix]
                data.attrs.update(subject=volume.subject, origin=volume.origin, slices=kept, support=support)
                data.attrs["contrast"] = volume.contrast
        file["left_out"] = json.dumps([dataclasses.astuple(one) for one in left_out])
        if not len(group):
            raise InputError(f"{root / getattr(source, 'path', '')}: holds no image with any signal")


def _check_room(volume: Volume, slices: int) -> None:
    """Refuse a volume whose field of view, made square, is beyond this machine's memory.

    Raises:
        InputError: it is, or the images are so long and thin that only damage can have made them.
    """
    side = max(volume.images.shape[1:])
    if side > max(_ANY_SHAPE, _THINNEST * min(volume.images.shape[1:])):
        raise InputError(f"{volume.origin}: its images are {volume.images.shape[1:]}, longer than any field of view")
    if _COPIES * 8 * slices * side**2 > psutil.virtual_memory().total:
        raise InputError(f"{volume.origin}: its {slices} slices, {side} x {side} made square, are beyond this memory")
