"""Cropping and zero-padding about the centre, and the k-space of an image at another matrix size."""

from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.mri.fft import fft2c

T = TypeVar("T", bound=np.generic)
Matrix = tuple[int, int] | Literal["native"]
"""(H, W) of images; native: each volume's own."""


def centre_crop_or_pad(array: NDArray[T], shape: tuple[int, int]) -> NDArray[T]:
    """`array` (..., H, W) cut or zero-padded to (..., *shape); index H // 2 stays the centre."""
    for axis, size in zip((-2, -1), shape, strict=True):
        have = array.shape[axis]
        start = abs(have // 2 - size // 2)
        if have >= size:
            array = np.take(array, range(start, start + size), axis=axis)
        else:
            margins = [(0, 0)] * array.ndim
            margins[axis] = (start, size - have - start)
            array = np.pad(array, margins)
    return array


def square(images: NDArray[T]) -> NDArray[T]:
    """Images (..., H, W) zero-padded to a square field of view, so that no anatomy is lost."""
    side = max(images.shape[-2:])
    return centre_crop_or_pad(images, (side, side))


def kspace_at(images: NDArray[np.generic], matrix: tuple[int, int]) -> NDArray[np.complex64]:
    """k-space (slices, *matrix) complex64 of square images (slices, n, n), centre-cropped or zero-padded.

    Scaled so that the inverse transform at the new size keeps the images' units: an orthonormal transform of n points
    has its centre at n times the mean, one of m points at m times.
    """
    side = images.shape[-1]
    gain = float(np.sqrt(matrix[0] * matrix[1])) / side
    complex_images = torch.from_numpy(np.ascontiguousarray(images, dtype=np.complex64))
    kspace: NDArray[np.complex64] = (fft2c(complex_images) * gain).numpy()
    return centre_crop_or_pad(kspace, matrix)
