"""3-D scans in HDF5 of which the readout is transformed already, so that slices lie along it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from fedsim.data.formats.hdf5 import Layout, opened
from fedsim.data.raw import RawSource, SliceRange, taken
from fedsim.data.subjects import Subject, apart


@dataclass(frozen=True, kw_only=True)
class ReadoutFile:
    """A file, checked."""

    file: Path
    who: Subject
    shape: tuple[int, ...]
    """Of its k-space, the readout first."""
    indices: range
    """Of the slices to take."""

    @property
    def size(self) -> tuple[int, int]:
        """H, W of a slice."""
        return self.shape[1], self.shape[2]


class AlongReadout(RawSource):
    """The base of their importers; H is ky and W is kz."""

    slices: SliceRange = Field(None, description="[start, stop): the slices to take along the readout.")

    layout: ClassVar[Layout]
    """Of k-space, with the readout as first axis."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.h5 and .hdf5."""
        return (".h5", ".hdf5")

    def recognises(self, file: Path) -> bool:
        """Whether it holds such k-space."""
        return self.layout.fits(file)

    def checked(self, root: Path) -> Iterator[ReadoutFile]:
        """The files in natural order.

        Raises:
            InputError: one lacks such k-space, or slices that are to be taken.
        """
        files = self.files(root)
        alone = apart(files)
        for file in files:
            with opened(file, self.expected) as hdf:
                shape = self.layout.find(file, hdf, self.expected).shape
                indices = taken(self.slices, shape[0])
            yield ReadoutFile(file=file, who=self.who(file, root, "", alone[file]), shape=shape, indices=indices)
