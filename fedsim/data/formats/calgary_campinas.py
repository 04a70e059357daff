"""The Calgary-Campinas multi-coil data set: 3-D brain scans in HDF5, of which the readout is transformed already.

Layout (Souza et al., NeuroImage 170:482, 2018; Beauferris et al., Front Neurosci 16:919186, 2022): `kspace` real
(256 slices along the readout x, 218 ky, 170 or 180 kz, 2 x 12 or 32), with the real and the imaginary part of each
coil in turn. ky = kz = 0 lies in the middle, but the images' origin in their first pixel: the published images are
ifft2(ifftshift(kspace)). The last 15 % of kz were not measured (partial Fourier).
"""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.formats.hdf5 import Layout
from fedsim.data.formats.readout import AlongReadout
from fedsim.data.names import safe_name, stem
from fedsim.data.raw import Scan, SliceRange
from fedsim.data.reading import reading
from fedsim.mri.fft import with_origin_at_centre

_WORDS = "real (slices, ky, kz, 2 x coils), real and imaginary part of each coil in turn"
_MEASURED = 0.85
"""Share of kz that was measured, from its first sample on."""


class CalgaryCampinas(AlongReadout):
    """One volume per file, with the readout as slice axis; H is ky and W is kz."""

    format: Literal["calgary_campinas"] = Field(
        "calgary_campinas", description="HDF5 files of the Calgary-Campinas multi-coil data set (.h5)."
    )
    slices: SliceRange = Field(
        None, description="[start, stop): the slices to take; of 256, the first and last 50 show hardly any brain."
    )

    expected: ClassVar[str] = "a Calgary-Campinas HDF5 file with a dataset kspace"
    layout: ClassVar[Layout] = Layout(name="kspace", axes=(4,), kinds="f", words=_WORDS)

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per file, in natural order of the files."""
        for one in self.checked(root):
            with reading(one.file, self.expected):
                if one.shape[-1] % 2:
                    raise InputError(f"kspace is {one.shape}; its last axis must be even: {_WORDS}")
            slices = self.each(one.file, one.indices, partial(_slice, one.file))
            yield Scan(safe_name(stem(one.file)), one.size, slices, file=one.file, who=one.who)


def _slice(file: Path, index: int) -> NDArray[Any]:
    """Centred k-space (coils, ky, kz) of a slice."""
    with h5py.File(file, "r", locking=False) as hdf:
        parts = hdf["kspace"][index]
    kspace: NDArray[Any] = np.moveaxis(parts[..., ::2] + 1j * parts[..., 1::2], -1, 0)
    kspace[..., math.ceil(kspace.shape[-1] * _MEASURED) :] = 0
    return with_origin_at_centre(kspace)
