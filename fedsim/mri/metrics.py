"""Image quality of a reconstructed volume, under a named protocol; NMSE, PSNR and SSIM in float64.

`fastmri`: NMSE and PSNR over the whole volume and SSIM per slice, all with the volume's maximum as data range (Zbontar
et al., arXiv 1811.08839). `slice`: each slice separately with its own maximum, then averaged. The two differ by several
dB for the same images and must never be compared. SSIM is scikit-image's default: 7x7 uniform window, K1 0.01, K2 0.03,
sample covariance.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Protocol = Literal["fastmri", "slice"]


@dataclass(frozen=True)
class Mean:
    """A weighted mean that can be pooled: the means of parts combine to the mean of the whole."""

    total: float = 0.0
    """Sum of weight times value, in the values' unit."""
    weight: float = 0.0
    """Sum of the weights."""

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> float:
        """The mean; NaN if it has no values."""
        return self.total / self.weight if self.weight else math.nan


class Quality(NamedTuple):
    """Quality of a volume against its target."""

    nmse: float
    """Normalised mean squared error: ||x - t||^2 / ||t||^2."""
    psnr: float
    """Peak signal-to-noise ratio [dB]."""
    ssim: float
    """Structural similarity, 1 at best."""


def volume_quality(
    reconstruction: NDArray[np.float32], target: NDArray[np.float32], protocol: Protocol = "fastmri"
) -> Quality:
    """Quality of a volume (slices, H, W) against its target of the same shape.

    Raises:
        ValueError: the shapes differ or a slice is smaller than SSIM's 7x7 window.
    """
    if reconstruction.shape != target.shape:
        raise ValueError(f"shapes differ: {reconstruction.shape} and {target.shape}")
    x, t = reconstruction.astype(np.float64), target.astype(np.float64)
    if protocol == "fastmri":
        return _quality(x, t)
    return mean_quality(_quality(x[None], t[None]) for x, t in zip(x, t, strict=True))


def mean_quality(parts: Iterable[Quality]) -> Quality:
    """The unweighted mean of several qualities; NaN if there is none."""
    return Quality(*(sum((Mean(v, 1) for v in column), Mean()).value for column in _columns(parts)))


def _columns(parts: Iterable[Quality]) -> Iterator[tuple[float, ...]]:
    return zip(*parts, strict=True) if (parts := list(parts)) else iter([(), (), ()])


def _quality(x: NDArray[np.float64], t: NDArray[np.float64]) -> Quality:
    """Quality over (slices, H, W) with one data range, the target's maximum."""
    peak = float(t.max())
    error = float(np.mean((x - t) ** 2))
    psnr = 10 * math.log10(peak**2 / error) if error and peak else math.inf
    ssim = [structural_similarity(a, b, data_range=peak) for a, b in zip(x, t, strict=True)]
    return Quality(nmse=error / float(np.mean(t**2)), psnr=psnr, ssim=float(np.mean(ssim)))
