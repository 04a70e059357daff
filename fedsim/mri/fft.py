"""Centred orthonormal Fourier transforms between image space and k-space, over the last two axes."""

import torch
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
