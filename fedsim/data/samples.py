"""What a client trains and is tested on: undersampled slices of its shard, prepared as they are needed.

Each slice is divided by one positive scale taken from its zero-filled image, input and target alike; the scale is kept
and undone before metrics and saved images. The shard stays fully sampled: undersampling happens here.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.data.shard import Shard
from fedsim.data.split import Part, Piece
from fedsim.errors import InputError
from fedsim.mri.fft import ifft2c
from fedsim.mri.geometry import centre_crop_or_pad
from fedsim.mri.masks import BoolArray, Mask
from fedsim.seeds import numpy_stream

Normalise = Literal["std", "max"]
ComplexArray = NDArray[np.complex64]


@dataclass(frozen=True)
class Batch:
    """Some slices, normalised."""

    kspace: Tensor  # (B, H, W) complex64, zero where not measured
    mask: Tensor  # (B, H, W) bool, True where measured
    zero_filled: Tensor  # (B, H, W) float32, magnitude of the inverse transform of kspace
    target: Tensor  # (B, H, W) float32, magnitude of the fully sampled image
    scale: Tensor  # (B, 1, 1) float32, positive: times it, everything is in the source's units


@dataclass(frozen=True)
class VolumeSlices:
    """A piece of a volume, prepared batch by batch in the order of its slices."""

    site: str
    piece: Piece
    mask: BoolArray  # (H, W)
    batches: Iterator[Batch]


class Slices(Protocol):
    """What a client trains and is tested on, wherever it comes from."""

    @property
    def members(self) -> "tuple[ClientData, ...]":
        """The data of each site."""
        ...

    @property
    def seed(self) -> int:
        """Root of the random streams."""
        ...

    def samples(self, part: Part = "train") -> int:
        """Number of slices."""
        ...

    def batches(self, size: int, order: torch.Generator) -> Iterator[Batch]:
        """The training slices once, in an order drawn from `order`, `size` at a time; the last batch may be smaller."""
        ...

    def volumes(self, part: Part, size: int) -> Iterator[VolumeSlices]:
        """Every piece of a part, `size` slices at a time."""
        ...


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

    @property
    def members(self) -> "tuple[ClientData, ...]":
        """Its own site's data."""
        return (self,)

    def samples(self, part: Part = "train") -> int:
        """Number of slices."""
        return sum(piece.stop - piece.start for piece in self.pieces if piece.part == part)

    def batches(self, size: int, order: torch.Generator) -> Iterator[Batch]:
        """The training slices once, in an order drawn from `order`, `size` at a time; the last batch may be smaller."""
        return _shuffled(self.members, size, order)

    def volumes(self, part: Part, size: int) -> Iterator[VolumeSlices]:
        """Every piece of a part, `size` slices at a time."""
        masks = self._masks(part)
        with Shard(self.shard) as shard:
            for piece in self._of(part):
                mask = masks[piece.volume]
                yield VolumeSlices(self.site, piece, mask, self._in_order(shard, piece, mask, size))

    def _in_order(self, shard: Shard, piece: Piece, mask: BoolArray, size: int) -> Iterator[Batch]:
        for start in range(piece.start, piece.stop, size):
            stop = min(start + size, piece.stop)
            kspace = torch.from_numpy(shard.kspace(piece.volume, slice(start, stop)))
            yield undersample(kspace, torch.from_numpy(mask).expand(kspace.shape), self.normalise)

    def _of(self, part: Part) -> list[Piece]:
        return [piece for piece in self.pieces if piece.part == part]

    def training_slices(self) -> list[tuple[Piece, int, BoolArray]]:
        """Every training slice: its piece, its index in the volume, its mask (H, W)."""
        masks = self._masks("train")
        return [(p, index, masks[p.volume]) for p in self._of("train") for index in range(p.start, p.stop)]

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


@dataclass(frozen=True)
class PooledData:
    """The slices of several sites in one hand, each with its own site's mask; a batch has slices of one matrix."""

    members: tuple[ClientData, ...]

    @property
    def seed(self) -> int:
        """Root of the random streams."""
        return self.members[0].seed

    def samples(self, part: Part = "train") -> int:
        """Number of slices."""
        return sum(member.samples(part) for member in self.members)

    def batches(self, size: int, order: torch.Generator) -> Iterator[Batch]:
        """All training slices once, in an order drawn from `order`; the last batch of a matrix may be smaller."""
        return _shuffled(self.members, size, order)

    def volumes(self, part: Part, size: int) -> Iterator[VolumeSlices]:
        """Every piece of a part, site by site."""
        for member in self.members:
            yield from member.volumes(part, size)


def _shuffled(members: Sequence[ClientData], size: int, order: torch.Generator) -> Iterator[Batch]:
    slices = [(member, *one) for member in members for one in member.training_slices()]
    with ExitStack() as stack:
        shards = {path: stack.enter_context(Shard(path)) for path in dict.fromkeys(m.shard for m in members)}
        waiting: dict[tuple[int, int], list[tuple[ComplexArray, BoolArray]]] = {}

        def batch(matrix: tuple[int, int]) -> Batch:
            kspace, mask = (np.stack(arrays) for arrays in zip(*waiting.pop(matrix), strict=True))
            return undersample(torch.from_numpy(kspace), torch.from_numpy(mask), members[0].normalise)

        for at in torch.randperm(len(slices), generator=order).tolist():
            member, piece, index, mask = slices[at]
            group = waiting.setdefault(member.matrix, [])
            group.append((shards[member.shard].kspace(piece.volume, [index])[0], mask))
            if len(group) == size:
                yield batch(member.matrix)
        for matrix in list(waiting):
            yield batch(matrix)
