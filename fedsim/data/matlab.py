"""MATLAB files: one numeric array each, of version 5 or 7.3 (HDF5)."""

import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.data.mat5 import numeric_arrays
from fedsim.data.names import safe_name, stem
from fedsim.data.reading import afford, reading
from fedsim.data.source import FileSource, Volume
from fedsim.errors import InputError
from fedsim.schema import Text

_EXPECTED = "a MATLAB file of version 5 or 7.3"
_NUMERIC = {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


@dataclass(frozen=True)
class _Array:
    """One array in a file, not read yet."""

    file: Path
    name: str
    shape: tuple[int, ...]
    """(H, W) or (H, W, slices), as MATLAB counts."""


class Matlab(FileSource):
    """A volume a file, of an array (H, W, slices) or (H, W); complex arrays stay complex.

    Unless every file is a subject, the single images of one subject and one size are the slices of one volume, in
    natural order. No MATLAB file names its subject: auto is the file, for single images their folder.
    """

    format: Literal["matlab"] = Field("matlab", description="MATLAB files (.mat), version 5 or 7.3.")
    variable: Text | None = Field(None, description="Name of the array; null: the only numeric one that is no vector.")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.mat alone."""
        return (".mat",)

    def read(self, root: Path) -> Iterator[Volume]:
        """A volume a file, or a subject where its files are single images, in natural order of the first files."""
        for subject, arrays in self._subjects(root).items():
            one_size = len({array.shape for array in arrays}) == 1 and len(arrays[0].shape) == 2
            if len(arrays) > 1 and one_size and self.subject != "file":
                origin = Path(os.path.commonpath([array.file.parent for array in arrays]))
                images = np.concatenate([_images(array) for array in arrays])
                yield Volume(subject, safe_name(origin.resolve().name), images, origin.relative_to(root).as_posix())
                continue
            for array in arrays:
                name = safe_name(stem(array.file))
                yield Volume(subject, name, _images(array), array.file.relative_to(root).as_posix())

    def _subjects(self, root: Path) -> dict[str, list[_Array]]:
        subjects: dict[str, list[_Array]] = {}
        for file in self.files(root):
            array = self._array(file)
            recorded = self.folder(file, root) if len(array.shape) == 2 else stem(file)
            subjects.setdefault(self.who(file, root, recorded), []).append(array)
        return subjects

    def _array(self, file: Path) -> _Array:
        """The array to read.

        Raises:
            InputError: it is missing, not numeric, of another rank, or one among several.
        """
        with reading(file, _EXPECTED):
            arrays = _arrays_v73(file) if h5py.is_hdf5(file) else _arrays_v5(file)
            images = [name for name, shape in arrays.items() if sorted(shape)[-2] > 1]
            name = self.variable or (images[0] if len(images) == 1 else "")
            if name not in arrays:
                lacks = f"no numeric array {name}" if name else f"{len(images)} arrays that may be images"
                there = ", ".join(f"{name} {shape}" for name, shape in arrays.items()) or "none"
                raise InputError(f"has {lacks}; set variable to one of its numeric arrays: {there}")
            if len(arrays[name]) not in (2, 3):
                raise InputError(f"array {name} is {arrays[name]}; (H, W) or (H, W, slices) is needed")
            afford(file, arrays[name], 8)
            return _Array(file, name, arrays[name])


def _arrays_v5(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the numeric arrays by name; cells, structs and objects are never read."""
    return {array.name: array.shape for array in numeric_arrays(file)}


def _arrays_v73(file: Path) -> dict[str, tuple[int, ...]]:
    """The same of an HDF5 file, which holds the axes in reversed order."""
    with h5py.File(file, "r") as hdf:
        arrays = {name: item for name, item in hdf.items() if isinstance(item, h5py.Dataset) and item.ndim >= 2}
        return {name: item.shape[::-1] for name, item in arrays.items() if _is_numeric(item)}


def _is_numeric(item: h5py.Dataset) -> bool:
    kind = item.attrs.get("MATLAB_class", b"double")
    name = kind.decode() if isinstance(kind, bytes) else str(kind)
    return name in _NUMERIC and (item.dtype.kind in "iufc" or item.dtype.names == ("real", "imag"))


def _images(array: _Array) -> NDArray[np.float32] | NDArray[np.complex64]:
    """Images (slices, H, W)."""
    with reading(array.file, _EXPECTED):
        values = _values_v73(array) if h5py.is_hdf5(array.file) else _values_v5(array)
        images = np.moveaxis(values.reshape((*array.shape, 1)[:3]), -1, 0)
        if images.dtype.kind == "c":
            return images.astype(np.complex64, order="C")
        return images.astype(np.float32, order="C")


def _values_v5(array: _Array) -> NDArray[Any]:
    same = [one for one in numeric_arrays(array.file) if (one.name, one.shape) == (array.name, array.shape)]
    return same[0].values()


def _values_v73(array: _Array) -> NDArray[Any]:
    with h5py.File(array.file, "r") as hdf:
        afford(array.file, hdf[array.name].chunks or (), 16)
        stored: NDArray[Any] = hdf[array.name][()].T
    return stored["real"] + 1j * stored["imag"] if stored.dtype.names else stored
