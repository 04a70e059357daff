"""The calibration region: the samples around the centre of k-space that a mask leaves complete."""

import torch
from torch import Tensor


def calibration_region(mask: Tensor) -> Tensor:
    """Where k-space is complete around its centre (..., H, W) bool, of masks (..., H, W) bool.

    It is the rectangle, symmetric about the centre, whose shorter side (as a share of its axis) is longest; for masks
    of whole readouts, all rows of the fully sampled columns, as in fastMRI. Without a complete centre it is one column.
    """
    height, width = mask.shape[-2:]
    distance = _from_centre(height, mask.device)[:, None].expand(mask.shape)
    rows = _length(distance.masked_fill(mask, height).amin(-2), height)  # (..., W): complete rows of each column
    half = torch.arange((width + 1) // 2 + 1, device=mask.device)  # of candidates: their numbers of columns / 2
    outside = _from_centre(width, mask.device) >= half[:, None]
    heights = rows.unsqueeze(-2).masked_fill(outside, height).amin(-1)  # (..., candidates)
    widths = (2 * half).clamp_max(width)
    balance, area = torch.minimum(heights * width, widths * height), heights * widths
    best = (balance * (height * width + 1) + area).argmax(-1, keepdim=True)
    columns = torch.take_along_dim(widths.expand(heights.shape), best, -1)
    return _centred(heights.gather(-1, best), height).unsqueeze(-1) & _centred(columns, width).unsqueeze(-2)


def has_centre(masks: Tensor) -> bool:
    """Whether all masks (..., H, W) bool are complete around the centre of k-space, over more than one column."""
    return bool((calibration_region(masks).any(-2).sum(-1) > 1).all())


def _from_centre(size: int, device: torch.device) -> Tensor:
    """How far every index is from the middle of an axis (size,): ..., 1, 0, 0, 1, ..."""
    offset = torch.arange(size, device=device) - size // 2
    return torch.where(offset < 0, -offset - 1, offset)


def _length(nearest: Tensor, size: int) -> Tensor:
    """Samples around the centre that are complete, given the distance of the nearest one that is not."""
    return (2 * nearest).masked_fill(nearest >= size - size // 2, size)


def _centred(length: Tensor, size: int) -> Tensor:
    """Indices of a region (..., size) bool of some length (..., 1), at least 1, where fedsim's masks have it."""
    length = length.clamp_min(1)
    start = (size - length + 1) // 2
    index = torch.arange(size, device=length.device)
    return (index >= start) & (index < start + length)
