"""Where the echo of a volume lies along the phase encoding, and which of its lines were measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.data.left_out import leave_out
from fedsim.mri.fft import fft2c, ifft2c

Fraction = tuple[float, float]
"""Ends of what was measured along the phase encoding, from -0.5 to 0.5 of the width of k-space; the echo is at 0."""

_EMPTY = 1e-6  # of the strongest line: what the rounding of a transform leaves of lines that are zero
_OFF_CENTRE = 1 / 32  # of the width: echoes closer to the middle are taken to be there


@dataclass(frozen=True, kw_only=True)
class Echo:
    """The echo of a volume, in lines of its k-space."""

    width: int
    """Number of lines."""
    off: int
    """Lines from the middle to the echo; 0 if it is near."""
    first: int
    """First line that was measured, once the echo is in the middle."""
    end: int
    """Line after the last one."""

    @classmethod
    def of(cls, images: Iterable[NDArray[Any]]) -> "Echo":
        """The echo of complex images (..., H, W) of all slices, as of their k-space."""
        return cls.of_kspace(fft2c(torch.from_numpy(image)).numpy() for image in images)

    @classmethod
    def of_kspace(cls, slices: Iterable[NDArray[Any]]) -> "Echo":
        """The echo of k-space (..., H, W) of all slices: the line with the most energy.

        Lines that were not measured are zero at the edges of k-space, as partial Fourier leaves them.
        """
        profile: NDArray[np.float64] = sum(map(_energy, slices), np.zeros(()))
        width = len(profile)
        off = int(profile.argmax()) - width // 2
        off = off if abs(off) > width * _OFF_CENTRE else 0
        there = np.flatnonzero(profile > _EMPTY**2 * profile.max())
        if not len(there) or not np.isfinite(profile).all():
            return cls(width=width, off=0, first=0, end=width)
        first, end = max(int(there[0]) - off, 0), min(int(there[-1]) + 1 - off, width)
        return cls(width=width, off=off, first=first, end=end)

    @property
    def measured(self) -> Fraction | None:
        """What was measured of the lines; None: all."""
        middle = self.width // 2
        whole = self.end - self.first == self.width
        return None if whole else ((self.first - middle) / self.width, (self.end - middle) / self.width)

    def centred(self, image: NDArray[Any]) -> NDArray[Any]:
        """An image (..., H, W) with the echo in the middle of its lines, as in `moved`."""
        if not self.off:
            return image
        moved = self.moved(fft2c(torch.from_numpy(image)).numpy())
        centred: NDArray[np.complex64] = ifft2c(torch.from_numpy(moved)).numpy()
        return centred

    def moved(self, kspace: NDArray[Any]) -> NDArray[Any]:
        """k-space (..., H, W) with the echo in the middle of its lines; those beyond the edge are lost."""
        if not self.off:
            return kspace
        rolled = np.roll(kspace, -self.off, axis=-1)
        rolled[..., slice(-self.off, None) if self.off > 0 else slice(0, -self.off)] = 0
        return rolled

    def note(self, file: Path) -> None:
        """Report that the echo was moved, and that lines were not measured."""
        if self.off:
            moved = f"(by {-self.off} of {self.width} lines)"
            leave_out(file, "volume's echo that was off the centre, moved there", moved)
        if self.measured:
            missing = self.width - (self.end - self.first)
            leave_out(file, "volume's lines that were not measured", f"({missing} of {self.width})")


def _energy(kspace: NDArray[Any]) -> NDArray[np.float64]:
    """Energy (W,) of each line of k-space (..., H, W)."""
    power = torch.from_numpy(kspace.astype(np.complex64)).abs().square()
    energy: NDArray[np.float64] = power.reshape(-1, kspace.shape[-1]).sum(0).double().numpy()
    return energy
