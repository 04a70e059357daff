"""k-space as files hold it: whether it is fully sampled, and the image it encodes."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.coils import Maps
from fedsim.data.source import FileSource
from fedsim.mri.fft import ifft1c, ifft2c, rolling_phase
from fedsim.mri.geometry import Matrix, centre_crop_or_pad
from fedsim.mri.masks import BoolArray

_STRAY = 0.02
"""Share of single samples that may be zero by chance, as in raw data with few bits."""

_FAINT = 1e-3
"""Level relative to the samples on either side; rounding and compression leave at most this between samples."""

_CLEARLY = 3.0
"""Values are taken for k-space if they are this many times more concentrated than their transform."""


@dataclass(frozen=True)
class RawVolume:
    """The k-space of one volume, slice by slice."""

    name: str
    size: tuple[int, int]
    """(h, w) that its images are cropped to; less than H, W if the readout is oversampled."""
    slices: Iterator[NDArray[Any]]
    """(coils, H, W) complex each, zero where nothing was measured."""


class KSpaceSource(FileSource):
    """A source of files that may hold k-space."""

    maps: Maps = Field(
        "estimate",
        description="Where the sensitivities of several coils come from: estimate (the centre of k-space), espirit, or "
        "file (the source's own maps).",
    )

    @abstractmethod
    def raw(self, root: Path) -> Iterator[RawVolume]:
        """The k-space of its volumes, in the order of `volumes`; files that hold images yield none.

        Raises:
            InputError: a file cannot be read, naming it.
        """


def measured(kspace: NDArray[Any]) -> BoolArray:
    """(H, W) bool: where k-space (..., H, W) has a sample in any coil; faint values between samples do not count."""
    levels = np.abs(kspace).reshape(-1, *kspace.shape[-2:]).max(0)
    samples: BoolArray = levels > 0
    for axis in (0, 1):
        samples &= np.expand_dims(~_faint(levels.max(axis), 0), axis)
    single = _faint(levels, 0) | _faint(levels, 1)
    return samples & ~single if single.mean() > _STRAY else samples


def _faint(levels: NDArray[Any], axis: int) -> BoolArray:
    """Where a level is negligible compared with those on either side along `axis`."""
    before = np.maximum.accumulate(levels, axis)
    after = np.flip(np.maximum.accumulate(np.flip(levels, axis), axis), axis)
    faint: BoolArray = levels < _FAINT * np.minimum(before, after)
    return faint


def gaps(samples: BoolArray, axis: int) -> BoolArray:
    """Where a sample is missing between two others along `axis`; zero edges are not gaps."""
    before = np.logical_or.accumulate(samples, axis)
    after = np.flip(np.logical_or.accumulate(np.flip(samples, axis), axis), axis)
    between: BoolArray = ~samples & before & after
    return between


def is_undersampled(kspace: NDArray[Any]) -> bool:
    """Whether k-space (..., H, W) has zeros between its samples: whole lines, or many single ones.

    Zero edges and corners, as left by partial Fourier, an elliptical field or padding, do not count.
    """
    samples = measured(kspace)
    lines = any(gaps(np.asarray(samples.any(axis)), 0).any() for axis in (0, 1))
    return lines or bool((gaps(samples, 0) | gaps(samples, 1)).mean() > _STRAY)


def centred(kspace: NDArray[Any]) -> NDArray[Any]:
    """k-space (slices, coils, H, W) with its centre at H // 2, W // 2; an FFT without shift leaves it at the corner."""
    for axis in (-2, -1):
        profile = np.abs(kspace).sum(axis=tuple({0, 1, 2, 3} - {axis % 4}))
        size, peak = len(profile), int(profile.argmax())
        if min(peak, size - peak) < abs(peak - size // 2):
            kspace = np.fft.fftshift(kspace, axis) * np.expand_dims(rolling_phase(size), tuple({-2, -1} - {axis}))
    return kspace.astype(np.complex64, copy=False)


def looks_like_kspace(values: NDArray[Any]) -> bool:
    """Whether complex values (..., H, W) are concentrated in a few places, like k-space, and their transform is not."""
    return _gathered(values) > _CLEARLY * _gathered(np.fft.fft2(values))


def _gathered(values: NDArray[Any]) -> float:
    """From 1/(H W), evenly spread, to 1, all in one place; the mean over images."""
    power = np.abs(values.astype(np.complex128)) ** 2
    total = power.sum((-2, -1))
    return float(((power**2).sum((-2, -1)) / np.where(total, total, 1) ** 2).mean())


def truth(kspace: NDArray[Any], size: tuple[int, int]) -> NDArray[np.complex64]:
    """The image (h, W) of fully sampled k-space (coils, H, W); the images (coils, h, W) if there are several coils.

    Only oversampling of the readout, the first image axis, is removed.

    Raises:
        InputError: it is undersampled, so its image is not a ground truth.
    """
    if is_undersampled(kspace):
        share = measured(kspace).mean()
        raise InputError(
            f"its k-space is undersampled ({share:.0%} of it measured, zeros between the samples), so its images are "
            "no ground truth; leave it out here, or give it to `fedsim reconstruct`, which uses the file's own mask"
        )
    full = ifft2c(torch.from_numpy(kspace.astype(np.complex64, copy=False)))
    image: NDArray[np.complex64] = centre_crop_or_pad(full.numpy(), (size[0], kspace.shape[-1]))
    return image[0] if len(image) == 1 else image


def at_matrix(kspace: NDArray[Any], size: tuple[int, int], matrix: Matrix) -> NDArray[np.complex64]:
    """Undersampled k-space (coils, H, W) at another matrix, with its mask and the units of its images unchanged.

    Oversampling is removed only from a readout without gaps, down to `size`, in image space; then k-space is cropped
    or zero-padded about its centre.
    """
    samples = measured(kspace)
    for axis, (have, wanted) in zip((-2, -1), zip(samples.shape, size, strict=True), strict=True):
        if wanted < have and not gaps(samples, axis).any():
            kspace = _cut_readout(kspace, wanted, axis)
    if matrix == "native":
        return kspace.astype(np.complex64)
    gain = float(np.sqrt(np.prod(matrix) / np.prod(kspace.shape[-2:])))
    return centre_crop_or_pad((kspace * gain).astype(np.complex64), matrix)


def _cut_readout(kspace: NDArray[Any], size: int, axis: int) -> NDArray[Any]:
    image = ifft1c(kspace, axis)
    height, width = kspace.shape[-2:]
    image = centre_crop_or_pad(image, (size, width) if axis == -2 else (height, size))
    shifted = np.fft.fft(np.fft.ifftshift(image, axis), axis=axis, norm="ortho")
    cut: NDArray[Any] = np.fft.fftshift(shifted, axis)
    return cut
