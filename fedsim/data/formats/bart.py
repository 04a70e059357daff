"""BART's .cfl files with their .hdr: raw k-space as the Berkeley Advanced Reconstruction Toolbox stores it.

Layout (mrirecon.github.io/bart): the .hdr says `# Dimensions` and up to 16 numbers, the .cfl holds as many complex64,
the first dimension fastest: 0 readout, 1 and 2 phase encoding, 3 coils, 4 sets of maps, 5 echoes, 10 time, 13 slices.
k-space is centred, and `bart fft -u` is orthonormal.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.kspace import looks_like_kspace
from fedsim.data.names import safe_name, stem
from fedsim.data.raw import RawSource, Scan
from fedsim.data.reading import afford, one_line, reading
from fedsim.data.subjects import apart
from fedsim.mri.fft import ifft1c

_DIMENSIONS = 16
_READOUT, _COILS, _MAPS, _SLICES = 0, 3, 4, 13
_OTHERS = (5, 6, 7, 8, 9, 10, 11, 12, 14, 15)
"""Dimensions that become slices: echoes, time, averages and so on."""


class Bart(RawSource):
    """One volume per pair of files; H is the first dimension of k-space with more than one sample, and W the second.

    3-D k-space is transformed along the readout, which becomes the slice axis.
    """

    format: Literal["bart"] = Field("bart", description="BART's k-space (.cfl with .hdr).")

    expected: ClassVar[str] = "a BART .cfl file with its .hdr"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.cfl and .hdr."""
        return (".cfl", ".hdr")

    def files(self, root: Path) -> list[Path]:
        """Every .cfl and .hdr file; of a .cfl that `path` names, its header too, which is part of what it says."""
        found = super().files(root)
        headers = (file.with_suffix(".hdr") for file in found if file.suffix == ".cfl")
        return list(dict.fromkeys([*found, *(header for header in headers if header.exists())]))

    def recognises(self, file: Path) -> bool:
        """Whether the file has its other half beside it."""
        return file.with_suffix(".cfl").exists() and file.with_suffix(".hdr").exists()

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per pair, in natural order of the files."""
        files = self.files(root)
        alone = apart(files)
        for file in files:
            other = file.with_suffix(".hdr" if file.suffix == ".cfl" else ".cfl")
            with reading(file, self.expected):
                if not other.exists():
                    raise InputError(f"has no {other.name} beside it; BART's arrays are pairs of .cfl and .hdr")
                if len(files) == 1 and file.suffix == ".hdr":
                    raise InputError(f"is the header of a pair; name {other.name}")
            if file.suffix == ".cfl":
                dimensions = self._dimensions(other)
                with reading(file, self.expected):
                    kspace = _kspace(file, dimensions)
                who = self.who(file, root, "", alone[file])
                yield Scan(safe_name(stem(file)), kspace.shape[-2:], iter(kspace), file=file, who=who)

    def _dimensions(self, header: Path) -> tuple[int, ...]:
        """All 16 dimensions."""
        with reading(header, "a BART header"):
            lines = header.read_bytes()[:10_000].decode("ascii").splitlines()
            at = next((index for index, line in enumerate(lines) if line.startswith("# Dimensions")), len(lines)) + 1
            words = lines[at].split() if at < len(lines) else []
            if not 1 <= len(words) <= _DIMENSIONS or not all(word.isdecimal() and int(word[:20]) for word in words):
                found = one_line(" ".join(words))[:60] or "nothing"
                raise InputError(f"must have up to 16 positive numbers below `# Dimensions`, not {found}")
            return tuple(int(word[:20]) for word in words) + (1,) * (_DIMENSIONS - len(words))


def _kspace(file: Path, dimensions: tuple[int, ...]) -> NDArray[Any]:
    """k-space (slices, coils, H, W).

    Raises:
        InputError: the file has another size, or holds no k-space of a plane or a volume.
    """
    needed = 8 * math.prod(dimensions)
    if needed != file.stat().st_size:
        shown = " x ".join(map(str, dimensions)).removesuffix(" x 1" * 10)
        raise InputError(f"has {file.stat().st_size} bytes; {shown:.100} complex64 of its .hdr need {needed}")
    afford(file, dimensions, 8)
    plane = [axis for axis in range(3) if dimensions[axis] > 1]
    if len(plane) < 2 or dimensions[_MAPS] > 1:
        what = f"{dimensions[_MAPS]} sets of maps" if len(plane) > 1 else "no plane of k-space"
        raise InputError(f"holds {what}; k-space has two or three of the first three dimensions, and one set")
    values: NDArray[Any] = np.memmap(file, np.complex64, "r", shape=dimensions, order="F")
    if len(plane) == 3:
        values = ifft1c(values, _READOUT)
    inside = plane[-2:]
    outside = [axis for axis in range(3) if axis not in inside]
    ordered = values.transpose(_SLICES, *outside, _MAPS, *_OTHERS, _COILS, *inside)
    kspace = ordered.reshape(-1, dimensions[_COILS], *(dimensions[axis] for axis in inside))
    if looks_like_kspace(np.fft.fft2(kspace[len(kspace) // 2])):
        raise InputError("seems to hold images; transform them to k-space first: bart fft -u 3")
    return kspace
