"""fastMRI's HDF5 files: k-space of one volume each, with an ISMRMRD header."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fedsim.data.names import Contrast, pick, safe_name, stem
from fedsim.data.reading import afford, reading
from fedsim.data.source import FileSource, Volume
from fedsim.errors import InputError
from fedsim.mri.fft import ifft2c
from fedsim.mri.geometry import centre_crop_or_pad

_EXPECTED = "a fastMRI HDF5 file with a dataset kspace"


class FastMRI(FileSource):
    """A volume a file: the inverse FFT of its k-space, cut to the reconstruction matrix (no readout oversampling).

    Single-coil k-space gives complex images, multi-coil k-space their root sum of squares. The subject is the attribute
    patient_id, or the file where there is none.
    """

    format: Literal["fastmri"] = Field("fastmri", description="fastMRI's HDF5 files (.h5, .hdf5).")
    contrast: Contrast = Field(
        None, description="Attribute acquisition of the files to take, such as AXT2: one, a list, or null for all."
    )

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.h5 and .hdf5."""
        return (".h5", ".hdf5")

    def read(self, root: Path) -> Iterator[Volume]:
        """A volume a file, in natural order of the files."""
        labels = {file: _attribute(file, "acquisition", "unnamed") for file in self.files(root)}
        for file in pick(labels, self.contrast, str.__eq__, root / self.path):
            subject = self.who(file, root, _attribute(file, "patient_id", stem(file)))
            yield Volume(subject, safe_name(stem(file)), _images(file), file.relative_to(root).as_posix())


def _attribute(file: Path, name: str, default: str) -> str:
    with reading(file, _EXPECTED), h5py.File(file, "r") as hdf:
        return _text(hdf.attrs.get(name, default)).strip() or default


def _text(value: object) -> str:
    item = np.asarray(value).item()
    return item.decode() if isinstance(item, bytes) else str(item)


def _images(file: Path) -> NDArray[np.float32] | NDArray[np.complex64]:
    """Images (slices, h, w): complex64 of k-space (slices, H, W), float32 of k-space (slices, coils, H, W)."""
    with reading(file, _EXPECTED), h5py.File(file, "r") as hdf:
        kspace = hdf.get("kspace")
        if not isinstance(kspace, h5py.Dataset):
            raise InputError(f"has no dataset kspace, only {', '.join(hdf) or 'nothing'}; {_EXPECTED} is needed")
        if kspace.dtype.kind != "c" or kspace.ndim not in (3, 4):
            raise InputError(f"kspace is {kspace.dtype} {kspace.shape}; it must be complex (slices, [coils,] H, W)")
        for shape in (kspace.shape, kspace.chunks or ()):
            afford(file, shape, kspace.dtype.itemsize)
        size = _matrix(file, hdf, kspace.shape[-2], kspace.shape[-1])
        images: NDArray[Any] = np.stack([_image(kspace[i], size) for i in range(len(kspace))])
        return images


def _image(kspace: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    full = ifft2c(torch.from_numpy(kspace.astype(np.complex64, copy=False)))
    image: NDArray[np.complex64] = centre_crop_or_pad(full.numpy(), size)
    return image if image.ndim == 2 else np.linalg.norm(image, axis=0)


def _matrix(file: Path, hdf: h5py.File, height: int, width: int) -> tuple[int, int]:
    """(h, w) to cut images (height, width) to: the header's, else the reconstruction's, else no taller than wide."""
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
        raise InputError("ismrmrd_header declares a document type; a plain ISMRMRD header has none")
    found = ElementTree.fromstring(text).find("{*}encoding/{*}reconSpace/{*}matrixSize")
    if found is None:
        return None
    size = int(found.findtext("{*}x", "0")), int(found.findtext("{*}y", "0"))
    if min(size) < 1:
        raise InputError(f"ismrmrd_header's reconSpace/matrixSize is {size}; x and y must be at least 1")
    return size
