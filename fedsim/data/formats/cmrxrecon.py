"""CMRxRecon's MATLAB 7.3 files: cardiac k-space, slices by frames.

Layout (Wang et al., Sci Data 11:687, 2024, and cmrxrecon.github.io): one array `kspace_full`, `kspace_single_full`
(one coil), `kspace_sub04` or, from 2024 on, `kspace` and `kus`: in MATLAB (kx, ky, coils, slices, frames), so in HDF5
(frames, slices, coils, ky, kx), as pairs of `real` and `imag`, centred. Black-blood scans have no frames. Masks lie in
files of their own (cine_sax_mask.mat). A subject's folder is P001, from 2025 on below that of the centre and scanner.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.formats.hdf5 import Layout, opened
from fedsim.data.names import Contrast, natural, pick, safe_name, stem
from fedsim.data.raw import RawSource, Scan
from fedsim.data.reading import one_line

_NAME = re.compile(r"k(space|data|us)(_\w+)?")
_WORDS = "complex (kx, ky, coils, slices[, frames]) in MATLAB, or without coils if its name has `single`"


class CMRxRecon(RawSource):
    """One volume per file, the frames of a slice one after the other; H is the readout kx, W the phase encoding ky."""

    format: Literal["cmrxrecon"] = Field("cmrxrecon", description="CMRxRecon's MATLAB 7.3 files (.mat).")
    contrast: Contrast = Field(
        None, description="File names to take, such as cine_sax, cine_lax, T1map: one, a list, or null for all."
    )

    record: ClassVar[str] = "the subject's folder"
    expected: ClassVar[str] = "a CMRxRecon MATLAB 7.3 file with an array kspace_full"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.mat alone."""
        return (".mat",)

    def recognises(self, file: Path) -> bool:
        """Whether it holds one of CMRxRecon's arrays."""
        try:
            with opened(file, self.expected) as hdf:
                return any(_is_kspace(name, hdf[name]) for name in hdf)
        except InputError:
            return False

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per file, in natural order of the files."""
        labels = {file: stem(file) for file in self.files(root)}
        for file in pick(labels, self.contrast, str.__eq__, root / self.path):
            with opened(file, self.expected) as hdf:
                name = self._array(file, hdf)
                shape = _reversed_shape(name, hdf[name].shape)
            count = shape[0] * shape[1]
            slices = self.each(file, range(count), lambda at, f=file, n=name: _slice(f, n, at))  # type: ignore[misc]
            who = self.who(file, root, _folder(file.relative_to(root)))
            volume = safe_name(f"{who.name}_{labels[file]}")
            yield Scan(volume, (shape[4], shape[3]), slices, file=file, who=who, contrast=labels[file])

    def _array(self, file: Path, hdf: h5py.File) -> str:
        found: list[str] = [name for name in hdf if _NAME.fullmatch(name)]
        if len(found) != 1:
            there = ", ".join(map(one_line, sorted(hdf, key=natural))) or "nothing"
            raise InputError(f"has {len(found)} arrays named like kspace_full, only one can be read; it holds {there}")
        Layout(name=found[0], axes=(4, 5), kinds="Vc", words=_WORDS).find(file, hdf, self.expected)
        if not _is_kspace(found[0], hdf[found[0]]):
            raise InputError(f"{found[0]} is {one_line(str(hdf[found[0]].dtype))}; it must be {_WORDS}")
        return found[0]


def _is_kspace(name: str, item: h5py.Group | h5py.Dataset) -> bool:
    """Whether an item of a file is complex, has enough axes, and a name like kspace_full."""
    if not isinstance(item, h5py.Dataset) or not _NAME.fullmatch(name) or item.ndim not in (4, 5):
        return False
    return bool(item.dtype.kind == "c" or item.dtype.names == ("real", "imag"))


def _reversed_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    """(frames, slices, coils, ky, kx) of an array as HDF5 has it."""
    if len(shape) == 4:
        shape = (*shape[:2], 1, *shape[2:]) if "single" in name else (1, *shape)
    frames, slices, coils, width, height = shape
    return frames, slices, coils, width, height


def _slice(file: Path, name: str, at: int) -> NDArray[Any]:
    """k-space (coils, kx, ky) of a frame of a slice; all frames of a slice come before the next slice."""
    with h5py.File(file, "r", locking=False) as hdf:
        array = hdf[name]
        frames, _, coils, width, height = _reversed_shape(name, array.shape)
        index = (at // frames, at % frames)
        stored = array[index[1], index[0]] if array.ndim == 5 or "single" in name else array[index[0]]
    values = stored["real"] + 1j * stored["imag"] if stored.dtype.names else stored
    return np.swapaxes(values.reshape(coils, width, height), -1, -2)


def _folder(path: Path) -> str:
    """The subject that a path's folders name: P001, with the folders of a centre and a scanner before it; or none."""
    folders = path.parent.parts
    at = next((index for index, folder in enumerate(folders) if re.fullmatch(r"P\d{3,4}", folder)), None)
    if at is None:
        return ""
    centre = next((index for index in range(at) if re.fullmatch(r"(?i)center\d+", folders[index])), at)
    return "-".join(folders[centre : at + 1])
