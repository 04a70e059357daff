"""Centred orthonormal Fourier transforms between image space and k-space, over the last two axes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_AXES = (-2, -1)


def fft2c(image: Tensor) -> Tensor:
    """k-space (..., H, W) complex of an image (..., H, W); unitary, both centres at index n // 2."""
    shifted = torch.fft.ifftshift(image, dim=_AXES)
    kspace: Tensor = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=_AXES)
    return kspace


def ifft2c(kspace: Tensor) -> Tensor:
    """Image (..., H, W) complex of a k-space (..., H, W); inverse and adjoint of `fft2c`."""
    shifted = torch.fft.ifftshift(kspace, dim=_AXES)
    image: Tensor = torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=_AXES)
    return image


def ifft1c(kspace: NDArray[Any], axis: int) -> NDArray[Any]:
    """k-space with one axis transformed to image space; unitary, both centres at index n // 2."""
    image = np.fft.ifft(np.fft.ifftshift(kspace, axis), axis=axis, norm="ortho")
    shifted: NDArray[Any] = np.fft.fftshift(image, axis)
    return shifted


def with_origin_at_centre(kspace: NDArray[Any]) -> NDArray[Any]:
    """Centred k-space (..., H, W) of images whose origin is their first pixel, for images with it at H // 2, W // 2.

    The image is only rolled; without this its halves are swapped and its phase alternates from pixel to pixel.
    """
    for axis in _AXES:
        kspace = kspace * np.expand_dims(rolling_phase(kspace.shape[axis]), axis=tuple({*_AXES} - {axis}))
    return kspace


def rolling_phase(size: int) -> NDArray[np.complex128]:
    """Phase (size,) of centred k-space that rolls an image's origin from its first pixel to size // 2."""
    phase: NDArray[np.complex128] = np.exp(2j * np.pi * (np.arange(size) - size // 2) * (size // 2) / size)
    return phase


def mirrored(kspace: Tensor) -> Tensor:
    """Values (..., H, W) at the points opposite to the centre, where conjugate partners lie.

    The first row or column of an even side has no opposite point on the grid: there the result is 0.
    """
    for axis in _AXES:
        kspace = kspace.flip(axis)
        if kspace.shape[axis] % 2 == 0:
            kspace = kspace.roll(1, axis)
            kspace.narrow(axis, 0, 1).zero_()
    return kspace
