"""Complex images and coils as networks take them."""

import torch
from torch import Tensor

from fedsim.mri.coils import rss


def by_coil(kspace: Tensor) -> Tensor:
    """k-space (B, C, H, W), also of a single coil (B, H, W)."""
    return kspace if kspace.dim() == 4 else kspace[:, None]


def sensitivities(maps: Tensor | None, kspace: Tensor) -> Tensor:
    """The maps (B, C, H, W), or those of one coil of sensitivity 1 (1, 1, 1, 1)."""
    return kspace.new_ones(1, 1, 1, 1) if maps is None else maps


def magnitude(images: Tensor) -> Tensor:
    """Root sum of squares (B, H, W) float of coil images (B, C, H, W); of a single one, its absolute value."""
    return rss(images) if images.shape[1] > 1 else images[:, 0].abs()


def as_channels(image: Tensor) -> Tensor:
    """Real and imaginary part (B, 2, H, W) of a complex image (B, H, W)."""
    return torch.view_as_real(image).permute(0, 3, 1, 2).contiguous()


def as_complex(channels: Tensor) -> Tensor:
    """The complex image (B, H, W) of real and imaginary part (B, 2, H, W)."""
    return torch.view_as_complex(channels.permute(0, 2, 3, 1).float().contiguous())  # autocast may have narrowed them
