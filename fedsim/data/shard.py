"""The site shard: one HDF5 file with the k-space of a site's volumes at its matrix size.

Layout: dataset `kspace/<volume>` complex64 (slices, H, W), or (slices, coils, H, W) if coils are kept, and then
`maps/<volume>` of the same shape, the coils' sensitivities; both with attribute `sums` (CRC-32 of each slice), and the
former with attributes `subject`, `told` and `original` (the person and how they were identified), `origin`, `contrast`,
`phase` (whether its images have any), `slices` (indices in the source), `shape` (H, W of the source's images),
`support` (H, W of the samples that are not zero-padding), `lines` (first and end of those measured; empty: all),
`digest` (SHA-256 of the images) and `coils` (of the source);
dataset `left_out`, what was not read, as JSON. Attribute `source` of `kspace` says what it was made from, and `seal` is
a digest of everything except the k-space and the maps, which are checked slice by slice as they are read.

Shards are kept in a cache, named by a digest of fedsim's version, the source's settings, the matrix and the files'
names, sizes and times; a new one is written under a temporary name, while a lease keeps other importers waiting.
"""

import dataclasses
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import psutil
from numpy.typing import NDArray

from fedsim.core.errors import DamagedError, InputError
from fedsim.core.files import lease, replacing, writing
from fedsim.core.shared_disk import awaited
from fedsim.data.coils import COMBINED, CoilSettings, as_kept, maps_at
from fedsim.data.echo import Fraction
from fedsim.data.encoding import cropped, kspace_of, lines_at, with_centred_echo
from fedsim.data.kspace import KSpaceSource
from fedsim.data.left_out import LeftOut, lines, noting
from fedsim.data.phase import with_phase
from fedsim.data.raw import sparing
from fedsim.data.source import Source, StoredVolume, Volume, volumes_of
from fedsim.data.subjects import Subject
from fedsim.data.values import settled, showing
from fedsim.mri.geometry import Matrix

_LAYOUT = 11
_ANY_SHAPE, _THINNEST = 1024, 8  # any aspect ratio up to this side, beyond it at most 8 to 1
_COPIES = 4  # slices of a volume that are transformed together


class Shard:
    """An open shard; reads slices lazily."""

    def __init__(self, path: Path) -> None:
        """Open a shard.

        Raises:
            DamagedError: the file has changed since fedsim wrote it.
        """
        self._path = path
        self._volumes: dict[str, tuple[h5py.Dataset, NDArray[np.uint32]]] = {}
        with self._undamaged():
            self._file = h5py.File(awaited(path), "r", locking=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def volumes(self) -> list[StoredVolume]:
        """The shard's volumes, in the source's order.

        Raises:
            DamagedError: the content has changed since it was written.
        """
        with self._undamaged():
            group = self._file["kspace"]
            volumes = [_describe(name, group) for name in group]
            if group.attrs["seal"] != _seal(self._file, volumes):
                raise ValueError("its digest differs")
            return volumes

    def source(self) -> str:
        """What it was made from."""
        with self._undamaged():
            return str(self._file["kspace"].attrs["source"])

    def left_out(self) -> list[LeftOut]:
        """What was not read when the shard was made."""
        with self._undamaged():
            return [LeftOut(*entry) for entry in json.loads(self._file["left_out"].asstr()[()])]

    def kspace(self, volume: str, slices: slice | NDArray[np.intp] | list[int]) -> NDArray[np.complex64]:
        """Fully sampled k-space (slices, H, W) or (slices, coils, H, W) of some slices; indices must increase.

        Raises:
            DamagedError: the content has changed since it was written.
        """
        return self._read(f"kspace/{volume}", slices)

    def maps(self, volume: str, slices: slice | NDArray[np.intp] | list[int]) -> NDArray[np.complex64]:
        """Sensitivities (slices, coils, H, W) of some slices, if coils are kept; indices must increase.

        Raises:
            DamagedError: as for `kspace`.
        """
        return self._read(f"maps/{volume}", slices)

    def _read(self, name: str, slices: slice | NDArray[np.intp] | list[int]) -> NDArray[np.complex64]:
        with self._undamaged():
            if name not in self._volumes:
                data = self._file[name]
                self._volumes[name] = data, data.attrs["sums"]
            data, sums = self._volumes[name]
            values: NDArray[np.complex64] = data[slices]
            if _sums(values) != sums[slices].tolist():
                raise ValueError(f"{name.partition('/')[2]} is not what was written")
        return values

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        """Report any exception of HDF5 as damage."""
        try:
            yield
        except (OSError, RuntimeError, AttributeError, LookupError, TypeError, ValueError) as error:
            why = " ".join(str(error).split())[:120]
            raise DamagedError(
                f"{self._path}: is damaged, or not a shard ({why}); delete it, and it will be made again"
            ) from error


def _describe(name: str, group: h5py.Group) -> StoredVolume:
    """A volume, after checking that its name is safe and its k-space is in this file."""
    own = isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Dataset)
    if not own or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r:.60} is not a volume")
    at = group[name].attrs
    slices, support, shape = (tuple(at[key].tolist()) for key in ("slices", "support", "shape"))
    who = Subject(at["subject"], at["told"], at["original"])
    return StoredVolume(
        name=name,
        who=who,
        origin=at["origin"],
        slices=slices,
        support=support,
        contrast=at["contrast"],
        digest=at["digest"],
        coils=int(at["coils"]),
        phase=bool(at["phase"]),
        shape=shape,
        lines=tuple(at["lines"].tolist()) or None,
    )


def _sums(kspace: NDArray[np.complex64]) -> list[int]:
    """A checksum of each slice (slices, ...)."""
    return [zlib.crc32(one) for one in kspace]


def _seal(file: h5py.File, volumes: list[StoredVolume]) -> str:
    """A digest of what a shard says about its volumes, including their checksums."""
    group = file["kspace"]
    data = [(group[one.name].shape, group[one.name].attrs["sums"].tolist()) for one in volumes]
    told = [[dataclasses.astuple(one) for one in volumes], data, group.attrs["source"], file["left_out"].asstr()[()]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def shard_path(source: Source, root: Path, cache: Path, matrix: Matrix, coils: CoilSettings = COMBINED) -> Path:
    """The path of the source's shard, which need not exist."""
    return cache / f"{source.format.replace(':', '.')}-{_digest(source, root, matrix, coils)}.h5"


def ensure_shard(source: Source, root: Path, cache: Path, matrix: Matrix, coils: CoilSettings = COMBINED) -> Path:
    """The path of the source's shard, after importing it if the cache does not hold it; safe for concurrent runs.

    Raises:
        InputError: the source has no usable image, or a file is invalid.
    """
    path = shard_path(source, root, cache, matrix, coils)
    if not path.exists():
        _make(cache)
        with writing(path):
            held = lease(path.with_suffix(".lock")).acquire()
        with held:
            if not path.exists():
                write_shard(source, root, matrix, path, coils)
    return path


def write_shard(source: Source, root: Path, matrix: Matrix, path: Path, coils: CoilSettings = COMBINED) -> None:
    """Import a source into a shard, under a temporary name until it is complete.

    Raises:
        InputError: the source has no usable image, or a file is invalid.
    """
    _make(path.parent)
    with replacing(path) as temporary:
        _write(source, root, matrix, temporary, coils)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"federation.cache: {folder} cannot be created ({error.strerror}); choose another") from error


@cache
def _version() -> str:
    return version("fedsim")


def _digest(source: Source, root: Path, matrix: Matrix, coils: CoilSettings) -> str:
    files = [(str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in source.files(root)]
    where = str(root.resolve()) if files else ""
    settings = source.model_dump(mode="json")
    made = [matrix, *dataclasses.astuple(coils)]
    key: list[object] = [_LAYOUT, _version(), settings, made, where, files, source.fingerprint(root)]
    if source.foreign:
        key.append(source.code())
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def _write(source: Source, root: Path, matrix: Matrix, path: Path, coils: CoilSettings) -> None:
    with h5py.File(path, "w", locking=False, libver="latest") as file, noting(root) as left_out:
        group = file.create_group("kspace", track_order=True)
        for volume in volumes_of(sparing(source, matrix, coils), root):
            if volume.name in group:
                raise InputError(f"{volume.origin}: a second volume named {volume.name}; names must differ")
            _add(file, volume, source, root, matrix, coils)
        if not len(group):
            besides = "".join(f"; {line}" for line in lines(left_out))
            raise InputError(f"{root / getattr(source, 'path', '')}: holds no image with any signal{besides}")
        file["left_out"] = json.dumps([dataclasses.astuple(one) for one in left_out])
        path_of = getattr(source, "path", None)
        group.attrs["source"] = str(root.resolve() / path_of) if path_of else source.identity()
        group.attrs["seal"] = _seal(file, [_describe(name, group) for name in group])


def _add(file: h5py.File, read: Volume, source: Source, root: Path, matrix: Matrix, coils: CoilSettings) -> None:
    """Store the slices of a volume that show something."""
    with np.errstate(all="ignore"):  # `settled` judges the values
        encoded = coils.kept or matrix == "native" or (isinstance(source, KSpaceSource) and coils.keeps_phase(read))
        volume, measured = with_centred_echo(read, root) if encoded else (read, None)
        volume = as_kept(cropped(volume, matrix), source, coils)
    volume = with_phase(settled(volume, source, root), source)
    kept = showing(volume, root)
    if not kept:
        return
    _check_room(volume, len(kept))
    _add_kspace(file, volume, kept, matrix, read.coils, measured)
    if coils.kept:
        _add_maps(file, volume, kept, source)


def _add_kspace(
    file: h5py.File, volume: Volume, kept: list[int], matrix: Matrix, coils: int, measured: Fraction | None
) -> None:
    """Store the k-space of a volume's slices; `coils` is the number of coils of the source."""
    images = np.ascontiguousarray(volume.images[kept])
    kspace = kspace_of(images, matrix)
    data = file["kspace"].create_dataset(volume.name, data=kspace, chunks=(1, *kspace.shape[1:]))
    side = max(images.shape[-2:])
    support = kspace.shape[-2:] if matrix == "native" else [min(side, one) for one in matrix]
    lines = lines_at(measured, images, matrix, kspace) if np.iscomplexobj(images) else None
    digest = hashlib.sha256(f"{images.dtype} {images.shape} ".encode() + images.tobytes()).hexdigest()
    who = {"subject": volume.subject, "told": volume.who.told, "original": volume.who.original}
    told = who | {"origin": volume.origin, "contrast": volume.contrast, "digest": digest}
    phase = bool(np.iscomplexobj(images) and images.imag.any())
    shape = {"shape": volume.size or images.shape[-2:], "support": support}
    sums = np.array(_sums(kspace), np.uint32)
    data.attrs.update(told, slices=kept, phase=phase, coils=coils, lines=lines or (), sums=sums, **shape)


def _add_maps(file: h5py.File, volume: Volume, kept: list[int], source: Source) -> None:
    """Store the sensitivities of the coils of a volume that is stored."""
    maps = maps_at(file["kspace"][volume.name][()], volume, kept, source)
    data = file.create_dataset(f"maps/{volume.name}", data=maps, chunks=(1, *maps.shape[1:]))
    data.attrs["sums"] = np.array(_sums(maps), np.uint32)


def _check_room(volume: Volume, slices: int) -> None:
    """Refuse a volume that does not fit into memory once its field of view is made square.

    Raises:
        InputError: it does not fit, or the images are so elongated that the file must be damaged.
    """
    shape = volume.images.shape[-2:]
    side = max(shape)
    if side > max(_ANY_SHAPE, _THINNEST * min(shape)):
        raise InputError(f"{volume.origin}: its images are {shape}, longer than any field of view")
    coils = math.prod(volume.images.shape[1:-2])
    if _COPIES * 8 * slices * coils * side**2 > psutil.virtual_memory().total:
        raise InputError(f"{volume.origin}: its {slices} slices, {side} x {side} once square, exceed the memory here")
