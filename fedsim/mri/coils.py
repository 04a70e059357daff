"""Several coils: the operator from an image to their undersampled k-space, its adjoint, and combining their images.

Images, k-space and sensitivities are (..., C, H, W) complex, masks (..., H, W) bool; centres are at n // 2, transforms
orthonormal. Sensitivities S have sum_c |S_c|^2 = 1 wherever there is signal.
"""

import torch
from torch import Tensor

from fedsim.mri.fft import fft2c, ifft2c

_COILS = -3
_SINGULAR = 1e-9  # smallest eigenvalue of a noise covariance, relative to the largest
CALIBRATION = 24
"""Samples along each axis, at most, of the centre that sensitivities and compression are taken from."""


def forward(image: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Measured k-space (..., C, H, W) of an image (..., H, W): M F S x."""
    return fft2c(maps * image.unsqueeze(_COILS)) * mask.unsqueeze(_COILS)


def adjoint(kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Adjoint of `forward`: the image (..., H, W) complex, sum_c conj(S_c) F^-1 M y_c."""
    return combined(ifft2c(kspace * mask.unsqueeze(_COILS)), maps)


def combined(images: Tensor, maps: Tensor) -> Tensor:
    """The image (..., H, W) complex of coil images (..., C, H, W), weighted by their sensitivities (Roemer et al.,
    Magn Reson Med 16:192, 1990)."""
    return (maps.conj() * images).sum(_COILS)


def rss(images: Tensor) -> Tensor:
    """Root sum of squares (..., H, W) float of coil images (..., C, H, W); where all are 0 its gradient is 0."""
    total = images.abs().square().sum(_COILS)
    empty = total == 0
    return total.masked_fill(empty, 1).sqrt().masked_fill(empty, 0)


def whitening(noise: Tensor) -> Tensor:
    """Matrix (C, C) that gives the noise of all coils equal power and no correlation, from noise (C, samples).

    It is the inverse Cholesky factor of the noise covariance (Pruessmann et al., Magn Reson Med 46:638, 2001), scaled
    to keep the mean power.

    Raises:
        ValueError: the covariance is singular: too few samples, or a coil without noise.
    """
    samples = noise.to(torch.complex128)
    covariance = samples @ samples.mH / samples.shape[1]
    power = torch.linalg.eigvalsh(covariance)
    if not power[0] > _SINGULAR * power[-1]:
        raise ValueError("the noise covariance is singular")
    factor = torch.linalg.cholesky(covariance)
    identity = torch.eye(len(factor), dtype=factor.dtype)
    inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
    scaled: Tensor = inverse * power.mean().sqrt()
    return scaled.to(noise.dtype)


def calibration(kspace: Tensor) -> Tensor:
    """The centre (..., C, h, w) of k-space (..., C, H, W), at most 24 samples along each axis."""
    for axis in (-2, -1):
        size = min(CALIBRATION, kspace.shape[axis])
        kspace = kspace.narrow(axis, kspace.shape[axis] // 2 - size // 2, size)
    return kspace


def compression(kspace: Tensor, coils: int) -> Tensor:
    """Matrix (coils, C) that combines the coils of a volume (slices, C, H, W) into fewer virtual ones.

    Its rows are the strongest left singular vectors of the calibration region, conjugated (Huang et al., Magn Reson
    Imaging 26:133, 2008); they are orthonormal, so noise stays as it is.
    """
    samples = calibration(kspace).movedim(_COILS, 0).flatten(1).to(torch.complex128)
    vectors = torch.linalg.eigh(samples @ samples.mH)[1].flip(-1)  # of the largest eigenvalue first
    phase = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sgn()  # each is unique up to a phase
    matrix: Tensor = (vectors / phase)[:, :coils].mH
    return matrix.to(kspace.dtype)


def compressed(values: Tensor, matrix: Tensor) -> Tensor:
    """Virtual coils (..., N, H, W) of coils (..., C, H, W), given the matrix (N, C) of `compression`."""
    return torch.einsum("nc,...chw->...nhw", matrix, values)


def estimated_maps(kspace: Tensor) -> Tensor:
    """Sensitivities (..., C, H, W) from the calibration region: its images over their root sum of squares.

    The region is tapered by a Hann window against ringing (McKenzie et al., Magn Reson Med 47:529, 2002). The phase is
    relative to the first coil.
    """
    centre = calibration(kspace)
    windows = [torch.hann_window(size + 1, periodic=False)[:size] for size in centre.shape[-2:]]
    tapered = torch.zeros_like(kspace)
    calibration(tapered).copy_(centre * (windows[0][:, None] * windows[1]))
    return normalised(ifft2c(tapered))


def normalised(images: Tensor) -> Tensor:
    """Images (..., C, H, W) over their root sum of squares, 0 where that is 0."""
    total = rss(images).unsqueeze(_COILS)
    return images / total.masked_fill(total == 0, 1)
