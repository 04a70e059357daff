"""What a client trains and is tested on: undersampled slices of its shard, prepared when they are needed.

Input and target of a slice are divided by one positive scale taken from its zero-filled image; the scale is kept and
undone before metrics and saved images. The shard stays fully sampled: undersampling happens here.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.core.extension import Extension
from fedsim.core.seeds import numpy_stream
from fedsim.data.batch import Batch, Normalise, undersample
from fedsim.data.coils import COMBINED, CoilSettings
from fedsim.data.shard import Shard, write_shard
from fedsim.data.source import Source
from fedsim.data.split import Part, Piece
from fedsim.mri.geometry import Matrix, centre_crop_or_pad
from fedsim.mri.masks import BoolArray, Sampling

ComplexArray = NDArray[np.complex64]


@dataclass(frozen=True, kw_only=True)
class VolumeSlices:
    """A piece of a volume, prepared batch by batch in the order of its slices."""

    site: str
    piece: Piece
    mask: BoolArray  # (H, W)
    batches: Iterator[Batch]
    combined: bool  # whether the target of several coils is weighted by their sensitivities
    shard: Path
    normalise: Normalise


class Slices(Protocol):
    """Interface of the data that a client trains and is tested on."""

    @property
    def members(self) -> "tuple[ClientData, ...]":
        """The data of each site."""
        ...

    @property
    def seed(self) -> int:
        """Root of the random streams."""
        ...

    @property
    def sections(self) -> list[Extension]:
        """The sections it is made with: masks, and sources of shards that do not exist yet."""
        ...

    def samples(self, part: Part = "train") -> int:
        """Number of slices."""
        ...

    def batches(self, size: int, order: torch.Generator, memory: "SliceMemory | None" = None) -> Iterator[Batch]:
        """The training slices once, in an order drawn from `order`, `size` at a time; the last batch may be smaller.

        Args:
            size: Slices in a batch.
            order: Stream that the order is drawn from.
            memory: Keeps prepared slices from one pass to the next; default none.
        """
        ...

    def volumes(self, part: Part, size: int) -> Iterator[VolumeSlices]:
        """Every piece of a part, `size` slices at a time."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClientData:
    """The slices of one client, by reference; cheap to send to the client's host."""

    shard: Path
    site: str
    pieces: tuple[Piece, ...]
    """The client's own training volumes and its site's validation and test volumes."""
    supports: tuple[tuple[int, int], ...]
    """Measured field of k-space of each piece's volume."""
    mask: Sampling
    matrix: Matrix
    normalise: Normalise
    seed: int  # the workload's
    coil_settings: CoilSettings = COMBINED
    coils: int = 0
    """Most coils of a volume in the shard; 0: they are combined."""
    maker: Source | None = None
    """Source to make the shard from on first read; None if it exists already."""

    @property
    def members(self) -> "tuple[ClientData, ...]":
        """The data of its site."""
        return (self,)

    @property
    def sections(self) -> list[Extension]:
        """The mask, and the source if the shard may still have to be made."""
        return [self.mask, *([self.maker] if self.maker else [])]

    def open(self) -> Shard:
        """The shard; a shard that is made on first use is made now."""
        if self.maker is not None and not self.shard.exists():
            write_shard(self.maker, Path(), self.matrix, self.shard, self.coil_settings)
        return Shard(self.shard)

    def samples(self, part: Part = "train") -> int:
        """Number of slices."""
        return sum(piece.stop - piece.start for piece in self.pieces if piece.part == part)

    def batches(self, size: int, order: torch.Generator, memory: "SliceMemory | None" = None) -> Iterator[Batch]:
        """The training slices once, in an order drawn from `order`, `size` at a time; the last batch may be smaller."""
        return _shuffled(self.members, size, order, memory or SliceMemory())

    def volumes(self, part: Part, size: int) -> Iterator[VolumeSlices]:
        """Every piece of a part, `size` slices at a time."""
        masks = self._masks(part)
        with self.open() as shard:
            for piece in self._of(part):
                batches = self._in_order(shard, piece, masks[piece.volume], size)
                yield VolumeSlices(
                    site=self.site,
                    piece=piece,
                    mask=masks[piece.volume],
                    batches=batches,
                    combined=self.coil_settings.target == "combined",
                    shard=self.shard,
                    normalise=self.normalise,
                )

    def _in_order(self, shard: Shard, piece: Piece, mask: BoolArray, size: int) -> Iterator[Batch]:
        for start in range(piece.start, piece.stop, size):
            stop = min(start + size, piece.stop)
            yield self.prepared(shard, piece.volume, slice(start, stop), mask)

    def prepared(
        self, shard: Shard, volume: str, slices: slice | list[int], mask: BoolArray, device: torch.device | str = "cpu"
    ) -> Batch:
        """Some slices of a volume, undersampled with a mask (H, W) and normalised, on a device."""
        kspace = torch.from_numpy(shard.kspace(volume, slices)).to(device, non_blocking=True)
        sampled = torch.from_numpy(mask).to(device, non_blocking=True).expand(len(kspace), *mask.shape)
        if not self.coils:
            return undersample(kspace, sampled, self.normalise)
        maps = torch.from_numpy(shard.maps(volume, slices)).to(device, non_blocking=True)
        return undersample(kspace, sampled, self.normalise, maps, self.coil_settings.target)

    def _of(self, part: Part) -> list[Piece]:
        return [piece for piece in self.pieces if piece.part == part]

    def training_slices(self) -> list[tuple[Piece, int, BoolArray]]:
        """Every training slice: its piece, its index in the volume, its mask (H, W)."""
        masks = self._masks("train")
        return [(p, index, masks[p.volume]) for p in self._of("train") for index in range(p.start, p.stop)]

    def shape(self, support: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the images of a volume, given the measured field of its k-space."""
        return support if self.matrix == "native" else self.matrix

    def pixels(self, part: Part = "train") -> int:
        """Number of pixels of all slices."""
        volumes = zip(self.pieces, self.supports, strict=True)
        return sum((p.stop - p.start) * math.prod(self.shape(own)) for p, own in volumes if p.part == part)

    @property
    def largest(self) -> int:
        """Number of pixels of the largest slice."""
        return max(math.prod(self.shape(support)) for support in self.supports)

    def volume_mask(self, volume: str, support: tuple[int, int], lines: tuple[int, int] | None = None) -> BoolArray:
        """The mask (H, W) of a volume: sampled on its support, False where k-space is padding or was not measured."""
        key = (self.site, volume) if self.mask.per == "volume" else (self.site,)
        stream = numpy_stream(self.seed, "mask", *key)
        sampled = self.mask.drawn(support, stream, f"site {self.site}: the mask of {volume}")
        mask = centre_crop_or_pad(sampled, self.shape(support))
        if lines is not None:
            mask[:, : lines[0]] = mask[:, lines[1] :] = False
        return mask

    def _masks(self, part: Part) -> dict[str, BoolArray]:
        return {
            piece.volume: self.volume_mask(piece.volume, support, piece.lines)
            for piece, support in zip(self.pieces, self.supports, strict=True)
            if piece.part == part
        }


@dataclass(frozen=True)
class PooledData:
    """The slices of several sites together, each with its site's mask; a batch has slices of one shape."""

    members: tuple[ClientData, ...]

    @property
    def seed(self) -> int:
        """Root of the random streams."""
        return self.members[0].seed

    @property
    def sections(self) -> list[Extension]:
        """Those of all sites."""
        return [section for member in self.members for section in member.sections]

    def samples(self, part: Part = "train") -> int:
        """Number of slices."""
        return sum(member.samples(part) for member in self.members)

    def batches(self, size: int, order: torch.Generator, memory: "SliceMemory | None" = None) -> Iterator[Batch]:
        """All training slices once, in an order drawn from `order`; the last batch of a shape may be smaller."""
        return _shuffled(self.members, size, order, memory or SliceMemory())

    def volumes(self, part: Part, size: int) -> Iterator[VolumeSlices]:
        """Every piece of a part, site by site."""
        for member in self.members:
            yield from member.volumes(part, size)


class SliceMemory:
    """Prepared training slices kept in memory where they are used: first come, first kept, up to a budget.

    Clients take turns in the same order every round, so evicting to make room for the newest would evict exactly what
    is needed next. Nothing is evicted; what does not fit is read and prepared each time, slice by slice as here, so
    that the bits are the same.
    """

    def __init__(self, budget: float = 0, device: torch.device | str = "cpu") -> None:
        self._left, self._device = budget, device
        self._kept: dict[tuple[str, str, tuple[Piece, ...]], list[Batch]] = {}
        self.seconds = 0.0
        """Seconds spent reading and preparing so far."""

    @contextmanager
    def training(self, data: ClientData) -> Iterator[Callable[[int], Batch]]:
        """A function that returns a client's training slices by number, each as a batch of one."""
        key = _key(data)
        if key in self._kept:
            yield self._kept[key].__getitem__
            return
        begun = time.perf_counter()
        slices = data.training_slices()
        with data.open() as shard:
            self.seconds += time.perf_counter() - begun
            if training_bytes(data) > self._left:
                yield lambda at: self._prepare(shard, data, *slices[at])
                return
            self._left -= training_bytes(data)
            self._kept[key] = [self._prepare(shard, data, *one) for one in slices]
        yield self._kept[key].__getitem__

    def forget(self, data: Slices) -> None:
        """Drop a client's slices."""
        for member in data.members:
            if self._kept.pop(_key(member), None) is not None:
                self._left += training_bytes(member)

    def _prepare(self, shard: Shard, data: ClientData, piece: Piece, index: int, mask: BoolArray) -> Batch:
        begun = time.perf_counter()
        batch = data.prepared(shard, piece.volume, [index], mask, self._device)
        self.seconds += time.perf_counter() - begun
        return batch


def _key(data: ClientData) -> tuple[str, str, tuple[Piece, ...]]:
    return data.site, str(data.shard), data.pieces


def training_bytes(data: ClientData) -> int:
    """Bytes of the prepared training slices.

    For each sample: k-space and maps (8 for each coil), mask (1), zero-filled image and target (4 each).
    """
    return (16 * data.coils + 9 if data.coils else 17) * data.pixels()


def _shuffled(members: Sequence[ClientData], size: int, order: torch.Generator, memory: SliceMemory) -> Iterator[Batch]:
    places = [(number, index) for number, member in enumerate(members) for index in range(member.samples())]
    with ExitStack() as stack:
        readers = [stack.enter_context(memory.training(member)) for member in members]
        waiting: dict[torch.Size, list[Batch]] = {}
        for at in torch.randperm(len(places), generator=order).tolist():
            number, index = places[at]
            one = readers[number](index)
            group = waiting.setdefault(one.kspace.shape, [])
            group.append(one)
            if len(group) == size:
                yield Batch.join(waiting.pop(one.kspace.shape))
        for group in waiting.values():
            yield Batch.join(group)
