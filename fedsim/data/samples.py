"""What a client trains and is tested on: undersampled slices of its shard, prepared as they are needed.

Each slice is divided by one positive scale taken from its zero-filled image, input and target alike; the scale is kept
and undone before metrics and saved images. The shard stays fully sampled: undersampling happens here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedsim.data.shard import Shard
from fedsim.data.split import Part, Piece
from fedsim.errors import InputError
from fedsim.mri.fft import ifft2c
from fedsim.mri.geometry import centre_crop_or_pad
from fedsim.mri.masks import BoolArray, Mask
from fedsim.seeds import numpy_stream

Normalise = Literal["std", "max"]


@dataclass(frozen=True)
class Batch:
    """Some slices, normalised."""

    kspace: Tensor  # (B, H, W) complex64, zero where not measured
    mask: Tensor  # (B, H, W) bool, True where measured
    zero_filled: Tensor  # (B, H, W) float32, magnitude of the inverse transform of kspace
    target: Tensor  # (B, H, W) float32, magnitude of the fully sampled image
    scale: Tensor  # (B, 1, 1) float32, positive: times it, everything is in the source's units


def undersample(kspace: Tensor, mask: Tensor, normalise: Normalise) -> Batch:
    """A batch from fully sampled k-space (B, H, W) complex64 and masks (B, H, W) bool."""
    measured = kspace * mask
    zero_filled, target = ifft2c(measured).abs(), ifft2c(kspace).abs()
    if normalise == "max":
        scale = zero_filled.amax(dim=(-2, -1), keepdim=True)
    else:
        scale = zero_filled.std(dim=(-2, -1), keepdim=True)
    scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    return Batch(measured / scale, mask, zero_filled / scale, target / scale, scale)


@dataclass(frozen=True)
class ClientData:
    """The slices of one client, by reference; cheap to send to wherever the client lives."""

    shard: Path
    site: str
    pieces: tuple[Piece, ...]
    """The client's own training volumes and its site's validation and test volumes."""
    supports: tuple[tuple[int, int], ...]
    """Measured field of k-space of each piece's volume."""
    mask: Mask
    matrix: tuple[int, int]
    normalise: Normalise
    seed: int

    def samples(self, part: Part = "train") -> int:
        """Number of slices."""
        return sum(piece.stop - piece.start for piece in self.pieces if piece.part == part)

    def batches(self, size: int, order: torch.Generator) -> Iterator[Batch]:
        """The training slices once, in an order drawn from `order`, `size` at a time; the last batch may be smaller."""
        slices = [(piece, i) for piece in self._of("train") for i in range(piece.start, piece.stop)]
        shuffled = [slices[i] for i in torch.randperm(len(slices), generator=order).tolist()]
        masks = self._masks("train")
        with Shard(self.shard) as shard:
            for start in range(0, len(shuffled), size):
                chosen = shuffled[start : start + size]
                kspace = np.stack([shard.kspace(piece.volume, [i])[0] for piece, i in chosen])
                mask = np.stack([masks[piece.volume] for piece, _ in chosen])
                yield undersample(torch.from_numpy(kspace), torch.from_numpy(mask), self.normalise)

    def volumes(self, part: Part, size: int) -> Iterator[tuple[Piece, BoolArray, Iterator[Batch]]]:
        """Every piece of a part with its mask (H, W) and its slices in order, `size` at a time."""
        masks = self._masks(part)
        with Shard(self.shard) as shard:
            for piece in self._of(part):
                yield piece, masks[piece.volume], self._in_order(shard, piece, masks[piece.volume], size)

    def _in_order(self, shard: Shard, piece: Piece, mask: BoolArray, size: int) -> Iterator[Batch]:
        for start in range(piece.start, piece.stop, size):
            stop = min(start + size, piece.stop)
            kspace = torch.from_numpy(shard.kspace(piece.volume, slice(start, stop)))
            yield undersample(kspace, torch.from_numpy(mask).expand(kspace.shape), self.normalise)

    def _of(self, part: Part) -> list[Piece]:
        return [piece for piece in self.pieces if piece.part == part]

    def volume_mask(self, volume: str, support: tuple[int, int]) -> BoolArray:
        """The mask (H, W) of a volume: sampled on its support, False where k-space is zero-padding."""
        key = (self.site, volume) if self.mask.per == "volume" else (self.site,)
        sampled = self.mask.sample(support, numpy_stream(self.seed, "mask", *key))
        if not sampled.any():
            raise InputError(f"site {self.site}: the mask of {volume} samples nothing; raise mask.center_fraction")
        return centre_crop_or_pad(sampled, self.matrix)

    def _masks(self, part: Part) -> dict[str, BoolArray]:
        return {
            piece.volume: self.volume_mask(piece.volume, support)
            for piece, support in zip(self.pieces, self.supports, strict=True)
            if piece.part == part
        }
