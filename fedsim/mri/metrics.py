"""Image quality of a reconstructed volume, under a named protocol; computed in float64.

`fastmri`: NMSE and PSNR over the whole volume and SSIM per slice, all with the volume's maximum as data range (Zbontar
et al., arXiv 1811.08839), after cropping images that are higher than wide to the central square, as fastMRI's
evaluate.py does; it refuses images that are wider than high, which are scored whole here. `slice`: each slice by
itself, with its own maximum, then averaged, never cropped. The two differ by several dB for the same images and must
never be compared. SSIM is scikit-image's default: 7x7 uniform window, K1 0.01, K2 0.03, sample covariance.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from skimage.metrics import structural_similarity

Protocol = Literal["fastmri", "slice"]
_LOG_SIZE, _LOG_SIGMA = 15, 1.5


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
    return mean_quality(_quality(x, t) for x, t in _scored(protocol, reconstruction, target))


def hfen(reconstruction: NDArray[np.float32], target: NDArray[np.float32], protocol: Protocol = "fastmri") -> float:
    """High-frequency error norm of a volume (slices, H, W): ||LoG(x - t)|| / ||LoG(t)||, 0 at best.

    LoG is the Laplacian of a Gaussian, 15x15 pixels, sigma 1.5, zero beyond the image (Ravishankar and Bresler, IEEE
    TMI 30:1028, 2011, who do not divide by the target's norm).

    Raises:
        ValueError: the shapes differ.
    """
    pairs = _scored(protocol, reconstruction, target)
    return sum((Mean(_edges(x - t) / _edges(t), 1) for x, t in pairs), Mean()).value


def region_quality(
    reconstruction: NDArray[np.float32],
    target: NDArray[np.float32],
    region: NDArray[np.bool_],
    protocol: Protocol = "fastmri",
) -> Quality:
    """Quality over the pixels of a region (slices, H, W) of a volume; NaN if it has none.

    NMSE and the error of PSNR are those of its pixels, SSIM is the mean of the windows centred on them; the data range
    is the protocol's, of the whole volume or slice.

    Raises:
        ValueError: the shapes differ.
    """
    scored = _scored(protocol, reconstruction, target, region)
    return mean_quality(_quality_inside(x, t, inside) for x, t, inside in scored if inside.any())


def mean_quality(parts: Iterable[Quality]) -> Quality:
    """The unweighted mean of several qualities; NaN if there is none."""
    return Quality(*(sum((Mean(v, 1) for v in column), Mean()).value for column in _columns(parts)))


def _columns(parts: Iterable[Quality]) -> Iterator[tuple[float, ...]]:
    return zip(*parts, strict=True) if (parts := list(parts)) else iter([(), (), ()])


def _scored(protocol: Protocol, *volumes: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """What a protocol scores together of volumes (slices, H, W): numbers in float64, a region as it is."""
    if len({volume.shape for volume in volumes}) > 1:
        raise ValueError(f"shapes differ: {' and '.join(str(volume.shape) for volume in volumes)}")
    wide = [volume if volume.dtype == np.bool_ else volume.astype(np.float64) for volume in volumes]
    if protocol == "fastmri":
        return iter([tuple(map(_central_square, wide))])
    return zip(*([volume[at : at + 1] for at in range(len(volume))] for volume in wide), strict=True)


def _central_square(volume: NDArray[Any]) -> NDArray[Any]:
    """The central rows of a volume that is higher than wide, as many as it has columns; others as they are."""
    height, width = volume.shape[-2:]
    start = (height - width) // 2  # as fastMRI's center_crop, for odd differences too
    return volume[..., start : start + width, :] if height > width else volume


def _quality(x: NDArray[np.float64], t: NDArray[np.float64]) -> Quality:
    """Quality over (slices, H, W) with one data range, the target's maximum."""
    peak = float(t.max())
    error = float(np.mean((x - t) ** 2))
    ssim = [structural_similarity(a, b, data_range=peak) for a, b in zip(x, t, strict=True)]
    return Quality(nmse=error / float(np.mean(t**2)), psnr=_decibel(peak, error), ssim=float(np.mean(ssim)))


def _quality_inside(x: NDArray[np.float64], t: NDArray[np.float64], inside: NDArray[np.bool_]) -> Quality:
    """Quality over the pixels `inside` of (slices, H, W), with the maximum of the whole target as data range."""
    peak, shown = float(t.max()), inside.any((-2, -1))
    error = float(np.mean((x - t)[inside] ** 2))
    pairs = zip(x[shown], t[shown], strict=True)
    maps = np.stack([structural_similarity(a, b, data_range=peak, full=True)[1] for a, b in pairs])
    power, ssim = float(np.mean(t[inside] ** 2)), float(maps[inside[shown]].mean())
    return Quality(nmse=error / power if power else math.nan, psnr=_decibel(peak, error), ssim=ssim)


def _decibel(peak: float, error: float) -> float:
    return 10 * math.log10(peak**2 / error) if error and peak else math.inf


def _edges(images: NDArray[np.float64]) -> float:
    """Norm of the Laplacian of a Gaussian of images (slices, H, W)."""
    y, x = np.mgrid[:_LOG_SIZE, :_LOG_SIZE] - _LOG_SIZE // 2
    square = (x**2 + y**2) / _LOG_SIGMA**2
    kernel = np.exp(-square / 2) * (square - 2) / _LOG_SIGMA**2 / np.exp(-square / 2).sum()
    return float(np.linalg.norm(fftconvolve(images, (kernel - kernel.mean())[None], mode="same", axes=(-2, -1))))
