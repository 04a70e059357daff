"""Reconstructing a client's volumes with a network and scoring them beside the zero-filled images."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.files import replacing
from fedsim.data.batch import Normalise, undersample
from fedsim.data.samples import Slices
from fedsim.data.split import Part, Piece
from fedsim.mri.masks import BoolArray, measured_acceleration
from fedsim.mri.metrics import Protocol, Quality, volume_quality

Network = Callable[..., Tensor]
"""Magnitude (B, H, W) of `Batch.inputs`: measured k-space, mask and, if coils are kept, maps."""
Coils = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A slice (H, W): reconstructed, and zero-filled."""


@dataclass(frozen=True, kw_only=True)
class ReconstructedVolume:
    """Images (slices, H, W) float32 in the target's units."""

    site: str
    piece: Piece
    mask: BoolArray
    """(H, W)."""
    reconstruction: NDArray[np.float32]
    """(slices, H, W)."""
    target: NDArray[np.float32]
    """(slices, H, W)."""
    zero_filled: NDArray[np.float32]
    """(slices, H, W)."""

    def quality(self, protocol: Protocol) -> Quality:
        """Quality of the reconstruction against the target."""
        return volume_quality(self.reconstruction, self.target, protocol)

    def score(self, protocol: Protocol) -> dict[str, str | float]:
        """One row of evaluation.parquet: its volume, and nmse, psnr, ssim reconstructed and zero-filled (zf_)."""
        ours = self.quality(protocol)
        zero_filled = volume_quality(self.zero_filled, self.target, protocol)
        who = {"site": self.site, "subject": self.piece.subject, "volume": self.piece.volume, "split": self.piece.part}
        return {**who, **ours._asdict(), **{f"zf_{key}": value for key, value in zero_filled._asdict().items()}}

    def save(self, path: Path, **attributes: str | int | float) -> None:
        """Write `reconstruction`, `target`, `zero_filled` and `mask` as HDF5, with attributes.

        The file can also be a target for fastMRI's evaluation: it has `reconstruction_esc`, `reconstruction_rss` and
        the attribute `acquisition`.
        """
        arrays = {"reconstruction": self.reconstruction, "zero_filled": self.zero_filled, "target": self.target}
        who = {"site": self.site, "subject": self.piece.subject, "acquisition": self.piece.contrast or "unknown"}
        save_images(path, self.mask, arrays, **who, **attributes)


def save_images(
    path: Path, mask: BoolArray, arrays: Mapping[str, NDArray[np.float32]], **attributes: str | int | float
) -> None:
    """Write images (slices, H, W) and their mask as HDF5, with attributes; `acceleration` is the measured one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        for name, array in arrays.items():
            file[name] = array
        file["mask"] = mask
        for name in ("reconstruction_esc", "reconstruction_rss") if "target" in arrays else ():
            file[name] = file["target"]  # another name for the same array
        file.attrs.update(attributes, acceleration=measured_acceleration(mask))


def reconstruct_coils(network: Network, kspace: NDArray[np.complex64], mask: BoolArray, normalise: Normalise) -> Coils:
    """Images (H, W) of one slice's k-space (coils, H, W), reconstructed and zero-filled, in its units.

    The network takes a single coil, so each coil is reconstructed separately; their root sum of squares is returned.
    """
    coils = torch.from_numpy(np.ascontiguousarray(kspace))
    with torch.inference_mode():
        batch = undersample(coils, torch.from_numpy(mask).expand(coils.shape), normalise)
        images, zero_filled = network(*batch.inputs) * batch.scale, batch.zero_filled * batch.scale
    combined = [each[0] if len(each) == 1 else torch.linalg.norm(each, dim=0) for each in (images, zero_filled)]
    return combined[0].numpy(), combined[1].numpy()


def reconstruct_volumes(
    network: Network, data: Slices, part: Part, size: int, device: torch.device | str = "cpu"
) -> Iterator[ReconstructedVolume]:
    """Every volume of a part reconstructed by a network on `device`, `size` slices at a time, then read from there."""
    for volume in data.volumes(part, size):
        images: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        with torch.inference_mode():
            for batch in volume.batches:
                output = network(*(_moved(tensor, device) for tensor in batch.inputs))
                images.append((output, batch.scale, batch.target * batch.scale, batch.zero_filled * batch.scale))
            output, scale, *others = (torch.cat(parts) for parts in zip(*images, strict=True))
            reconstruction, target, zero_filled = (part.numpy() for part in (output.cpu() * scale, *others))
        yield ReconstructedVolume(
            site=volume.site,
            piece=volume.piece,
            mask=volume.mask,
            reconstruction=reconstruction,
            target=target,
            zero_filled=zero_filled,
        )


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device; to a GPU it is copied from pinned memory, so that nothing waits."""
    device = torch.device(device)
    if device.type == "cuda":
        tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
    return tensor.to(device, non_blocking=True)
