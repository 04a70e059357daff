"""A batch: some undersampled slices, normalised, as a network takes them.

Input and target of a slice are divided by one positive scale taken from its zero-filled image; the scale is kept and
undone before metrics and saved images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from fedsim.data.coils import Target
from fedsim.mri.coils import combined, rss
from fedsim.mri.fft import ifft2c

Normalise = Literal["std", "max"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some slices, normalised."""

    kspace: Tensor  # (B, H, W) complex64, zero where not measured; (B, C, H, W) if coils are kept
    mask: Tensor  # (B, H, W) bool, True where measured
    zero_filled: Tensor  # (B, H, W) float32, magnitude of the inverse transform of kspace
    target: Tensor  # (B, H, W) float32, magnitude of the fully sampled image
    scale: Tensor  # (B, 1, 1) float32, positive: multiply by it for the source's units
    maps: Tensor | None = None  # (B, C, H, W) complex64, sensitivities of the coils; None: coils are not kept

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What any network is called with: k-space, mask and, if coils are kept, maps."""
        return (self.kspace, self.mask) if self.maps is None else (self.kspace, self.mask, self.maps)

    @classmethod
    def join(cls, batches: "Sequence[Batch]") -> "Batch":
        """Several batches as one."""
        present = [part.name for part in fields(cls) if getattr(batches[0], part.name) is not None]
        return cls(**{name: torch.cat([getattr(one, name) for one in batches]) for name in present})


def undersample(
    kspace: Tensor, mask: Tensor, normalise: Normalise, maps: Tensor | None = None, target: Target = "rss"
) -> Batch:
    """A batch from fully sampled k-space.

    Args:
        kspace: (B, H, W) complex64; with maps (B, C, H, W).
        mask: (B, H, W) bool.
        normalise: What of the zero-filled image everything is divided by.
        maps: Sensitivities (B, C, H, W) of several coils.
        target: How the images of several coils are combined.
    """
    measured = kspace * (mask if maps is None else mask[:, None])
    zero_filled, full = (_magnitude(ifft2c(each), maps, target) for each in (measured, kspace))
    if normalise == "max":
        scale = zero_filled.amax(dim=(-2, -1), keepdim=True)
    else:
        scale = zero_filled.std(dim=(-2, -1), keepdim=True)
    scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    return Batch(
        kspace=measured / (scale if maps is None else scale[:, None]),
        mask=mask,
        zero_filled=zero_filled / scale,
        target=full / scale,
        scale=scale,
        maps=maps,
    )


def _magnitude(images: Tensor, maps: Tensor | None, target: Target) -> Tensor:
    """Magnitude (B, H, W) of images (B, H, W), or of coil images (B, C, H, W) combined."""
    if maps is None:
        return images.abs()
    return rss(images) if target == "rss" else combined(images, maps).abs()
