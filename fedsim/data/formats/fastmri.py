"""fastMRI's HDF5 files: k-space of one volume each, with an ISMRMRD header.

Layout (Zbontar et al., arXiv:1811.08839): `kspace` complex (slices, [coils,] H, W), H the readout, twice oversampled,
and W the phase encoding, centred at H // 2, W // 2; `ismrmrd_header`; attributes `acquisition` and `patient_id`. Files
of the test set also have `mask` (W,), and zeros where nothing was measured.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.data.formats import ismrmrd_header
from fedsim.data.formats.hdf5 import Layout, opened
from fedsim.data.kspace import RawVolume
from fedsim.data.names import Contrast, pick, safe_name, stem
from fedsim.data.raw import RawSource, Scan
from fedsim.data.reading import afford
from fedsim.data.subjects import apart

_KSPACE = Layout(name="kspace", axes=(3, 4), kinds="c", words="complex (slices, [coils,] H, W)")


class FastMRI(RawSource):
    """One volume per file: the inverse FFT of its k-space, cropped to the reconstruction matrix (no oversampling).

    Images are complex, of each coil; undersampled k-space is refused. The subject is the attribute patient_id. An
    echo off the centre is found by its energy; the encoding limits of the header are not read.
    """

    format: Literal["fastmri"] = Field("fastmri", description="fastMRI's HDF5 files (.h5, .hdf5).")
    contrast: Contrast = Field(
        None, description="Attribute acquisition of the files to take, such as AXT2: one, a list, or null for all."
    )

    record: ClassVar[str] = "patient_id"
    expected: ClassVar[str] = "a fastMRI HDF5 file with a dataset kspace"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.h5 and .hdf5."""
        return (".h5", ".hdf5")

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per file, in natural order of the files."""
        labels = {file: self._attribute(file, "acquisition", "unnamed") for file in self.files(root)}
        alone = apart(labels)
        for file in pick(labels, self.contrast, str.__eq__, root / self.path):
            who = self.who(file, root, self._attribute(file, "patient_id", ""), alone[file])
            shape, size = self.shape_and_size(file)
            slices = self.each(file, range(shape[0]), lambda index, file=file: _slice(file, index))  # type: ignore[misc]
            yield Scan(safe_name(stem(file)), size, slices, file=file, who=who, contrast=labels[file])

    def raw(self, root: Path) -> Iterator[RawVolume]:
        """The k-space of each file, whatever its contrast."""
        return self.model_copy(update={"contrast": None}).scans(root)

    def shape_and_size(self, file: Path) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The shape of a file's k-space, and (h, w) that its images are cropped to.

        Raises:
            InputError: it has no such k-space, or an invalid header.
        """
        with opened(file, self.expected) as hdf:
            shape = _KSPACE.find(file, hdf, self.expected).shape
            return shape, _matrix(file, hdf, *shape[-2:])

    def _attribute(self, file: Path, name: str, default: str) -> str:
        with opened(file, self.expected) as hdf:
            return _text(hdf.attrs.get(name, default)).strip() or default


def _text(value: object) -> str:
    item = np.asarray(value).item()
    return item.decode() if isinstance(item, bytes) else str(item)


def _slice(file: Path, index: int) -> NDArray[Any]:
    """k-space (coils, H, W) of a slice; one coil if the file has no coil axis."""
    with h5py.File(file, "r", locking=False) as hdf:
        kspace = hdf["kspace"]
        coils: NDArray[Any] = kspace[index].reshape(-1, *kspace.shape[-2:])
        return coils


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
        InputError: the header declares a document type or a matrix below one.
    """
    if "ismrmrd_header" not in hdf:
        return None
    header = hdf["ismrmrd_header"]
    afford(file, header.shape, header.dtype.itemsize)
    found = ismrmrd_header.matrix(ismrmrd_header.parsed(_text(header[()])), "reconSpace")
    return found[:2] if found else None
