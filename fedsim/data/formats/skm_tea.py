"""SKM-TEA's HDF5 files: knee scans (qDESS) of two echoes, of which the readout is transformed already.

Layout (Desai et al., NeurIPS Datasets and Benchmarks 2021; folder `files_recon_calib-24`): `kspace` complex (x, ky, kz,
echoes, coils), centred and zero-padded, with the sensitivities `maps` (x, y, z, coils, 1). Every second ky was
measured, and the others were estimated by the scanner's maker (ARC): that is what the data set calls fully sampled.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.formats.hdf5 import Layout, opened
from fedsim.data.names import Contrast, pick, safe_name, stem
from fedsim.data.raw import RawSource, Scan, SliceRange, taken
from fedsim.data.subjects import apart

_KSPACE = Layout(name="kspace", axes=(5,), kinds="c", words="complex (x, ky, kz, echoes, coils)")
_MAPS = Layout(name="maps", axes=(5,), kinds="c", words="complex (x, y, z, coils, 1)")


class SKMTEA(RawSource):
    """One volume per file and echo, with the readout x as slice axis; H is ky and W is kz."""

    format: Literal["skm_tea"] = Field("skm_tea", description="SKM-TEA's HDF5 files of the raw-data track (.h5).")
    contrast: Contrast = Field(None, description="Echoes to take, echo1 or echo2: one, a list, or null for all.")
    slices: SliceRange = Field(None, description="[start, stop): the slices to take along the readout.")

    expected: ClassVar[str] = "a SKM-TEA HDF5 file with a dataset kspace"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.h5 and .hdf5."""
        return (".h5", ".hdf5")

    def recognises(self, file: Path) -> bool:
        """Whether its k-space is complex, with five axes."""
        return _KSPACE.fits(file)

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per file and echo, in natural order of the files."""
        files = self.files(root)
        alone = apart(files)
        for file in files:
            with opened(file, self.expected) as hdf:
                shape = _KSPACE.find(file, hdf, self.expected).shape
                indices = taken(self.slices, shape[0])
                maps = partial(self._maps, file, indices, shape) if "maps" in hdf else None
            who = self.who(file, root, "", alone[file])
            echoes = {echo: f"echo{echo + 1}" for echo in range(shape[3])}
            for echo in pick(echoes, self.contrast, str.__eq__, file):
                slices = self.each(file, indices, partial(_slice, file, echo))
                name = safe_name(f"{stem(file)}_{echoes[echo]}")
                yield Scan(name, shape[1:3], slices, file=file, who=who, contrast=echoes[echo], maps=maps)

    def _maps(self, file: Path, indices: range, shape: tuple[int, ...]) -> NDArray[np.complex64]:
        """Sensitivities (slices, coils, H, W)."""
        with opened(file, self.expected) as hdf:
            maps = _MAPS.find(file, hdf, self.expected)
            if maps.shape != (*shape[:3], shape[4], 1):
                raise InputError(f"maps is {maps.shape}; kspace {shape} needs {(*shape[:3], shape[4], 1)}")
            taken: NDArray[np.complex64] = maps[indices.start : indices.stop, ..., 0].astype(np.complex64)
            return np.moveaxis(taken, -1, 1)


def _slice(file: Path, echo: int, index: int) -> NDArray[Any]:
    """k-space (coils, ky, kz) of a slice of an echo."""
    with h5py.File(file, "r", locking=False) as hdf:
        return np.moveaxis(hdf["kspace"][index, :, :, echo], -1, 0)
