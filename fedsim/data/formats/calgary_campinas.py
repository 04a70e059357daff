"""The Calgary-Campinas multi-coil data set: 3-D brain scans in HDF5, of which the readout is transformed already.

Layout (Souza et al., NeuroImage 170:482, 2018; Beauferris et al., Front Neurosci 16:919186, 2022): `kspace` real
(256 slices along the readout x, 218 ky, 170 or 180 kz, 2 x 12 or 32), with the real and the imaginary part of each
coil in turn. ky = kz = 0 lies in the middle, but the images' origin in their first pixel: the published images are
ifft2(ifftshift(kspace)). The last 15 % of kz were not measured (partial Fourier).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.formats.hdf5 import Layout, opened
from fedsim.data.names import safe_name, stem
from fedsim.data.raw import RawSource, Scan, SliceRange, taken
from fedsim.data.subjects import apart
from fedsim.mri.fft import with_origin_at_centre

_WORDS = "real (slices, ky, kz, 2 x coils), real and imaginary part of each coil in turn"
_KSPACE = Layout(name="kspace", axes=(4,), kinds="f", words=_WORDS)
_MEASURED = 0.85
"""Share of kz that was measured, from its first sample on."""


class CalgaryCampinas(RawSource):
    """One volume per file, with the readout as slice axis; H is ky and W is kz."""

    format: Literal["calgary_campinas"] = Field(
        "calgary_campinas", description="HDF5 files of the Calgary-Campinas multi-coil data set (.h5)."
    )
    slices: SliceRange = Field(
        None, description="[start, stop): the slices to take; of 256, the first and last 50 show hardly any brain."
    )

    expected: ClassVar[str] = "a Calgary-Campinas HDF5 file with a dataset kspace"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.h5 and .hdf5."""
        return (".h5", ".hdf5")

    def recognises(self, file: Path) -> bool:
        """Whether its k-space is real, with four axes."""
        return _KSPACE.fits(file)

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per file, in natural order of the files."""
        files = self.files(root)
        alone = apart(files)
        for file in files:
            with opened(file, self.expected) as hdf:
                shape = _KSPACE.find(file, hdf, self.expected).shape
                if shape[-1] % 2:
                    raise InputError(f"kspace is {shape}; its last axis must be even: {_WORDS}")
                indices = taken(self.slices, shape[0])
            slices = self.each(file, indices, lambda index, file=file: _slice(file, index))  # type: ignore[misc]
            who = self.who(file, root, "", alone[file])
            yield Scan(safe_name(stem(file)), shape[1:3], slices, file=file, who=who)


def _slice(file: Path, index: int) -> NDArray[Any]:
    """Centred k-space (coils, ky, kz) of a slice."""
    with h5py.File(file, "r", locking=False) as hdf:
        parts = hdf["kspace"][index]
    kspace: NDArray[Any] = np.moveaxis(parts[..., ::2] + 1j * parts[..., 1::2], -1, 0)
    kspace[..., math.ceil(kspace.shape[-1] * _MEASURED) :] = 0
    return with_origin_at_centre(kspace)
