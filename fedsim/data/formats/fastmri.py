"""fastMRI's HDF5 files: k-space of one volume each, with an ISMRMRD header."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.kspace import KSpaceSource, RawVolume, truth
from fedsim.data.names import Contrast, pick, safe_name, stem
from fedsim.data.reading import afford, reading
from fedsim.data.source import Volume
from fedsim.data.subjects import apart

_EXPECTED = "a fastMRI HDF5 file with a dataset kspace"


class FastMRI(KSpaceSource):
    """One volume per file: the inverse FFT of its k-space, cropped to the reconstruction matrix (no oversampling).

    Images are complex, of each coil; undersampled k-space is refused. The subject is the attribute patient_id.
    """

    format: Literal["fastmri"] = Field("fastmri", description="fastMRI's HDF5 files (.h5, .hdf5).")
    contrast: Contrast = Field(
        None, description="Attribute acquisition of the files to take, such as AXT2: one, a list, or null for all."
    )

    record: ClassVar[str] = "patient_id"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.h5 and .hdf5."""
        return (".h5", ".hdf5")

    def read(self, root: Path) -> Iterator[Volume]:
        """One volume per file, in natural order of the files."""
        labels = {file: _attribute(file, "acquisition", "unnamed") for file in self.files(root)}
        alone = apart(labels)
        for file in pick(labels, self.contrast, str.__eq__, root / self.path):
            who = self.who(file, root, _attribute(file, "patient_id", ""), alone[file])
            raw = _raw(file)
            with reading(file, _EXPECTED):
                images: NDArray[Any] = np.stack([truth(kspace, raw.size) for kspace in raw.slices])
            yield Volume(who, raw.name, images, file.relative_to(root).as_posix(), contrast=labels[file])

    def raw(self, root: Path) -> Iterator[RawVolume]:
        """The k-space of each file."""
        return map(_raw, self.files(root))


def _attribute(file: Path, name: str, default: str) -> str:
    with reading(file, _EXPECTED), h5py.File(file, "r", locking=False) as hdf:
        return _text(hdf.attrs.get(name, default)).strip() or default


def _text(value: object) -> str:
    item = np.asarray(value).item()
    return item.decode() if isinstance(item, bytes) else str(item)


def _slice(file: Path, index: int) -> NDArray[Any]:
    """k-space (coils, H, W) of a slice; one coil if the file has no coil axis."""
    with reading(file, _EXPECTED), h5py.File(file, "r", locking=False) as hdf:
        kspace = _kspace(file, hdf)
        coils: NDArray[Any] = kspace[index].reshape(-1, *kspace.shape[-2:])
        return coils


def _kspace(file: Path, hdf: h5py.File) -> h5py.Dataset:
    kspace = hdf.get("kspace")
    if not isinstance(kspace, h5py.Dataset):
        raise InputError(f"has no dataset kspace, only {', '.join(hdf) or 'nothing'}; {_EXPECTED} is needed")
    if kspace.dtype.kind != "c" or kspace.ndim not in (3, 4):
        raise InputError(f"kspace is {kspace.dtype} {kspace.shape}; it must be complex (slices, [coils,] H, W)")
    for shape in (kspace.shape, kspace.chunks or ()):
        afford(file, shape, kspace.dtype.itemsize)
    return kspace


def _raw(file: Path) -> RawVolume:
    with reading(file, _EXPECTED), h5py.File(file, "r", locking=False) as hdf:
        kspace = _kspace(file, hdf)
        size = _matrix(file, hdf, *kspace.shape[-2:])
        return RawVolume(safe_name(stem(file)), size, (_slice(file, index) for index in range(len(kspace))))


def _matrix(file: Path, hdf: h5py.File, height: int, width: int) -> tuple[int, int]:
    """(h, w) to crop images (height, width) to: the header's, else the reconstruction's, else at most square."""
    size = _header_matrix(file, hdf)
    for name in ("reconstruction_esc", "reconstruction_rss"):
        if size is None and name in hdf:
            size = hdf[name].shape[-2:]
    h, w = size or (min(height, width), width)
    return min(h, height), min(w, width)


def _header_matrix(file: Path, hdf: h5py.File) -> tuple[int, int] | None:
    """reconSpace/matrixSize (x, y) of the header; x is the readout, the first image axis.

    Raises:
        InputError: the header declares a document type (entities are never expanded) or a matrix below one.
    """
    if "ismrmrd_header" not in hdf:
        return None
    header = hdf["ismrmrd_header"]
    afford(file, header.shape, header.dtype.itemsize)
    text = _text(header[()])
    if "<!DOCTYPE" in text:
        raise InputError("ismrmrd_header declares a document type; an ISMRMRD header must not")
    found = ElementTree.fromstring(text).find("{*}encoding/{*}reconSpace/{*}matrixSize")
    if found is None:
        return None
    size = int(found.findtext("{*}x", "0")), int(found.findtext("{*}y", "0"))
    if min(size) < 1:
        raise InputError(f"ismrmrd_header's reconSpace/matrixSize is {size}; x and y must be at least 1")
    return size
