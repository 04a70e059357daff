"""Arrays of HDF5 files, checked before anything is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from fedsim.core.errors import InputError
from fedsim.data.reading import afford, one_line, reading


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an array must be."""

    name: str
    axes: tuple[int, ...]
    """Numbers of axes that it may have."""
    kinds: str
    """Kinds of numbers that it may have, as in NumPy."""
    words: str
    """All of that in words."""

    def find(self, file: Path, hdf: h5py.File, expected: str) -> h5py.Dataset:
        """The array.

        Raises:
            InputError: it is missing, has other axes or numbers, or is larger than the file can hold.
        """
        found = hdf.get(self.name)
        if not isinstance(found, h5py.Dataset):
            there = ", ".join(map(one_line, hdf)) or "nothing"
            raise InputError(f"has no dataset {self.name}, only {there}; {expected} is needed")
        if not self._fits(found):
            raise InputError(f"{self.name} is {one_line(str(found.dtype))} {found.shape}; it must be {self.words}")
        for shape in (found.shape, found.chunks or ()):
            afford(file, shape, found.dtype.itemsize)
        return found

    def fits(self, file: Path) -> bool:
        """Whether a file holds such an array."""
        try:
            with h5py.File(file, "r", locking=False) as hdf:
                return isinstance(hdf.get(self.name), h5py.Dataset) and self._fits(hdf[self.name])
        except (OSError, RuntimeError, ValueError):
            return False

    def _fits(self, found: h5py.Dataset) -> bool:
        return found.dtype.kind in self.kinds and found.ndim in self.axes and 0 not in found.shape


@contextmanager
def opened(file: Path, expected: str) -> Iterator[h5py.File]:
    """An HDF5 file; every error inside becomes one line that names it."""
    with reading(file, expected), h5py.File(file, "r", locking=False) as hdf:
        yield hdf
