"""What local training minimises: functions of an image and its target (B, H, W), magnitudes of order 1."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor

from fedsim.mri.fft import fft2c

Loss = Literal["mse", "l1", "ssim", "l1_ssim", "kspace"]

_WINDOW = 7
_K1, _K2 = 0.01, 0.03
_LEAST_RANGE = 1e-3  # of a slice without signal


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity of slices to their targets, 1 at best.

    That of `fedsim.mri.metrics` under the protocol `slice`: 7x7 uniform window, sample covariance, each target's
    maximum as data range. (The volume's maximum, which `fastmri` takes, is not known to a batch of slices.)
    """
    peak = target.amax((-2, -1), keepdim=True).clamp_min(_LEAST_RANGE)
    c1, c2 = (_K1 * peak).square(), (_K2 * peak).square()
    products = torch.stack([image, target, image * image, target * target, image * target])
    x, t, xx, tt, xt = F.avg_pool2d(products, _WINDOW, stride=1).unbind()
    sample = _WINDOW**2 / (_WINDOW**2 - 1)
    spread, joint = sample * (xx - x * x + tt - t * t), sample * (xt - x * t)
    found = (2 * x * t + c1) * (2 * joint + c2) / ((x * x + t * t + c1) * (spread + c2))
    return found.mean()


def _kspace(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the images' k-space."""
    return fft2c(image - target).abs().mean()


def _l1_ssim(image: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(image, target) + 1 - ssim(image, target)


_LOSSES: Mapping[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "ssim": lambda image, target: 1 - ssim(image, target),
    "l1_ssim": _l1_ssim,
    "kspace": _kspace,
}


def loss_of(kind: Loss, image: Tensor, target: Tensor) -> Tensor:
    """The loss of an image, in the arithmetic of its target."""
    return _LOSSES[kind](image.to(target.dtype), target)
