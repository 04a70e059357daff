"""Reconstructing a client's volumes with a network and scoring them beside the zero-filled images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.data.samples import Slices
from fedsim.data.split import Part, Piece
from fedsim.files import replacing
from fedsim.mri.masks import BoolArray
from fedsim.mri.metrics import Protocol, Quality, volume_quality

Network = Callable[[Tensor, Tensor], Tensor]
"""Magnitude (B, H, W) of measured k-space (B, H, W) and mask (B, H, W)."""


@dataclass(frozen=True)
class ReconstructedVolume:
    """Images (slices, H, W) float32 in the target's units."""

    site: str
    piece: Piece
    mask: BoolArray
    reconstruction: NDArray[np.float32]
    target: NDArray[np.float32]
    zero_filled: NDArray[np.float32]

    def quality(self, protocol: Protocol) -> Quality:
        """How close the reconstruction is to the target."""
        return volume_quality(self.reconstruction, self.target, protocol)

    def score(self, protocol: Protocol) -> dict[str, str | float]:
        """One row of evaluation.parquet: who, and nmse, psnr, ssim of the reconstruction and (zf_) the zero-filled."""
        ours = self.quality(protocol)
        zero_filled = volume_quality(self.zero_filled, self.target, protocol)
        who = {"site": self.site, "subject": self.piece.subject, "volume": self.piece.volume, "split": self.piece.part}
        return {**who, **ours._asdict(), **{f"zf_{key}": value for key, value in zero_filled._asdict().items()}}

    def save(self, path: Path) -> None:
        """Write `reconstruction`, `target` and `zero_filled` as HDF5."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
            for name in ("reconstruction", "target", "zero_filled"):
                file.create_dataset(name, data=getattr(self, name))


def reconstruct_volumes(
    network: Network, data: Slices, part: Part, size: int, device: torch.device | str = "cpu"
) -> Iterator[ReconstructedVolume]:
    """Every volume of a part reconstructed by a network on `device`, `size` slices at a time."""
    for volume in data.volumes(part, size):
        images: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.inference_mode():
            for batch in volume.batches:
                output = network(batch.kspace.to(device), batch.mask.to(device)).cpu()
                images.append((output * batch.scale, batch.target * batch.scale, batch.zero_filled * batch.scale))
        reconstruction, target, zero_filled = (torch.cat(parts).numpy() for parts in zip(*images, strict=True))
        yield ReconstructedVolume(volume.site, volume.piece, volume.mask, reconstruction, target, zero_filled)
