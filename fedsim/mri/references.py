"""Reconstructions without training: what a scanner could compute from a single scan.

They take measured k-space, zero where nothing was measured, and are exact in its scale: k-space times a positive number
gives images times that number. Their parameters are fixed; `TV_WEIGHT` was chosen on phantoms' validation data.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from fedsim.mri.coils import adjoint, forward
from fedsim.mri.fft import ifft2c, mirrored
from fedsim.mri.sense import solve

Reference = Literal["conjugate", "sense", "tv"]
ZERO_FILLED = "zero-filled"
UNTRAINED: Mapping[str, str] = {
    "zf": ZERO_FILLED, "conjugate": "conjugate filling", "sense": "CG-SENSE", "tv": "total variation",
}  # fmt: skip
"""Reconstructions without training by the prefix of their columns, as tables name them."""
HEADS: Mapping[str, str] = {prefix: label[0].upper() + label[1:] for prefix, label in UNTRAINED.items()}
"""The same as figures head their images."""
CG_STEPS, CG_WEIGHT = 30, 1e-3
"""Steps of conjugate gradients, and weight of ||x||^2 beside ||A x - y||^2."""
TV_STEPS, TV_WEIGHT = 150, 1e-3
"""Steps of the primal-dual method, and weight of the total variation relative to the largest value of |A^H y|."""
PARAMETERS = (CG_STEPS, CG_WEIGHT, TV_STEPS, TV_WEIGHT)
"""What the images depend on besides the data."""
_TAU, _SIGMA = 1.0, 1 / 16  # 1 / tau - 8 sigma >= 1/2, since A and sum_c |S_c|^2 are at most 1 and |D|^2 at most 8


def conjugate_filled(kspace: Tensor, mask: Tensor) -> Tensor:
    """Magnitude (..., H, W) with samples that were not measured taken from their conjugate partners that were.

    Exact for images without phase, whose k-space is conjugate symmetric; k-space (..., H, W), mask (..., H, W) bool.
    """
    partner = torch.where(mirrored(mask), mirrored(kspace).conj(), 0)
    return ifft2c(torch.where(mask, kspace, partner)).abs()


def sense(kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Magnitude (..., H, W) of the least-squares image of all coils, by conjugate gradients.

    Minimises ||A x - y||^2 + w ||x||^2 (Pruessmann et al., Magn Reson Med 46:638, 2001).

    Args:
        kspace: y (..., C, H, W) complex.
        maps: Sensitivities (..., C, H, W).
        mask: (..., H, W) bool.
    """
    weight = torch.full((1,), CG_WEIGHT)
    return solve(adjoint(kspace, maps, mask), weight, maps, mask, CG_STEPS).abs()


def total_variation(kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Magnitude (..., H, W) of the image with little total variation that fits the samples (compressed sensing).

    Minimises ||A x - y||^2 / 2 + w TV(x), with the isotropic total variation of complex images, by the primal-dual
    method of Condat (J Optim Theory Appl 158:460, 2013); after Lustig et al., Magn Reson Med 58:1182, 2007.

    Args:
        kspace: y (..., C, H, W) complex.
        maps: Sensitivities (..., C, H, W).
        mask: (..., H, W) bool.
    """
    image = start = adjoint(kspace, maps, mask)
    bound = TV_WEIGHT * start.abs().amax((-2, -1), keepdim=True)
    dual = torch.zeros_like(_gradient(image))
    for _ in range(TV_STEPS):
        misfit = adjoint(forward(image, maps, mask), maps, mask) - start
        after = image - _TAU * (misfit + _gradient_adjoint(dual))
        dual = dual + _SIGMA * _gradient(2 * after - image)
        length = dual.abs().square().sum(0).sqrt()
        dual = dual * (bound / torch.maximum(length, bound).clamp_min(torch.finfo(length.dtype).tiny))
        image = after
    return image.abs()


def _gradient(image: Tensor) -> Tensor:
    """Forward differences (2, ..., H, W) of an image along both axes, 0 at its last row and column."""
    down, right = torch.zeros_like(image), torch.zeros_like(image)
    down[..., :-1, :] = image[..., 1:, :] - image[..., :-1, :]
    right[..., :-1] = image[..., 1:] - image[..., :-1]
    return torch.stack((down, right))


def _gradient_adjoint(dual: Tensor) -> Tensor:
    """Adjoint of `_gradient`."""
    image = torch.zeros_like(dual[0])
    image[..., :-1, :] -= dual[0][..., :-1, :]
    image[..., 1:, :] += dual[0][..., :-1, :]
    image[..., :-1] -= dual[1][..., :-1]
    image[..., 1:] += dual[1][..., :-1]
    return image
