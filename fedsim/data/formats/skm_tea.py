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
from fedsim.data.formats.readout import AlongReadout
from fedsim.data.names import Contrast, pick, safe_name, stem
from fedsim.data.raw import Scan

_MAPS = Layout(name="maps", axes=(5,), kinds="c", words="complex (x, y, z, coils, 1)")


class SKMTEA(AlongReadout):
    """One volume per file and echo, with the readout x as slice axis; H is ky and W is kz."""

    format: Literal["skm_tea"] = Field("skm_tea", description="SKM-TEA's HDF5 files of the raw-data track (.h5).")
    contrast: Contrast = Field(None, description="Echoes to take, echo1 or echo2: one, a list, or null for all.")

    expected: ClassVar[str] = "a SKM-TEA HDF5 file with a dataset kspace"
    layout: ClassVar[Layout] = Layout(name="kspace", axes=(5,), kinds="c", words="complex (x, ky, kz, echoes, coils)")

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per file and echo, in natural order of the files."""
        for one in self.checked(root):
            with opened(one.file, self.expected) as hdf:
                maps = partial(self._maps, one.file, one.indices, one.shape) if "maps" in hdf else None
            echoes = {echo: f"echo{echo + 1}" for echo in range(one.shape[3])}
            for echo in pick(echoes, self.contrast, str.__eq__, one.file):
                slices = self.each(one.file, one.indices, partial(_slice, one.file, echo))
                name, contrast = safe_name(f"{stem(one.file)}_{echoes[echo]}"), echoes[echo]
                yield Scan(name, one.size, slices, file=one.file, who=one.who, contrast=contrast, maps=maps)

    def _maps(self, file: Path, indices: range, shape: tuple[int, ...]) -> Iterator[NDArray[np.complex64]]:
        """Sensitivities (coils, H, W) of each slice."""
        with opened(file, self.expected) as hdf:
            found = _MAPS.find(file, hdf, self.expected).shape
            if found != (*shape[:3], shape[4], 1):
                raise InputError(f"maps is {found}; kspace {shape} needs {(*shape[:3], shape[4], 1)}")
        yield from self.each(file, indices, partial(_map, file))


def _slice(file: Path, echo: int, index: int) -> NDArray[Any]:
    """k-space (coils, ky, kz) of a slice of an echo."""
    with h5py.File(file, "r", locking=False) as hdf:
        return np.moveaxis(hdf["kspace"][index, :, :, echo], -1, 0)


def _map(file: Path, index: int) -> NDArray[Any]:
    """Sensitivities (coils, y, z) of a slice."""
    with h5py.File(file, "r", locking=False) as hdf:
        return np.moveaxis(hdf["maps"][index, ..., 0], -1, 0)
