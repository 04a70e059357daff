"""Reconstructing a client's volumes with a network and scoring them beside the zero-filled images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.files import replacing
from fedsim.data.batch import Normalise, undersample
from fedsim.data.boxes import region_of
from fedsim.data.coils import COMBINED, CoilSettings, Maps, maps_within
from fedsim.data.samples import Slices
from fedsim.data.split import Part, Piece
from fedsim.data.untrained import references_of
from fedsim.mri.calibration import calibration_region
from fedsim.mri.coils import compressed, compression
from fedsim.mri.masks import BoolArray, measured_acceleration
from fedsim.mri.metrics import Protocol, Quality, hfen, region_quality, volume_quality
from fedsim.mri.references import Reference

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
    references: Mapping[Reference, NDArray[np.float32]] = field(default_factory=dict)
    """(slices, H, W) each: further reconstructions without training."""
    combined: bool = False
    """Whether the target is the coils' sum weighted by their sensitivities; `protocol` says so then."""

    def quality(self, protocol: Protocol) -> Quality:
        """Quality of the reconstruction against the target."""
        return volume_quality(self.reconstruction, self.target, protocol)

    def score(self, protocol: Protocol) -> dict[str, str | float]:
        """One row of evaluation.parquet: its volume; nmse, psnr, ssim and hfen reconstructed, zero-filled (zf_) and by
        each reference (conjugate_, sense_, tv_); of a volume with boxes also roi_nmse, roi_psnr and roi_ssim in them.
        """
        row: dict[str, str | float] = {"site": self.site, "subject": self.piece.subject}
        row |= {"volume": self.piece.volume, "split": self.piece.part}
        row |= {"protocol": f"{protocol}, combined target"} if self.combined else {}
        everyone = {"": self.reconstruction, "zf_": self.zero_filled}
        for prefix, images in (everyone | {f"{name}_": one for name, one in self.references.items()}).items():
            row |= {f"{prefix}{key}": value for key, value in self._measured(images, protocol).items()}
        return row

    def _measured(self, images: NDArray[np.float32], protocol: Protocol) -> dict[str, float]:
        found = {**volume_quality(images, self.target, protocol)._asdict(), "hfen": hfen(images, self.target, protocol)}
        if self.piece.boxes:
            region = region_of(self.piece.boxes, self.piece.start, self.target.shape)
            inside = region_quality(images, self.target, region, protocol)
            found |= {f"roi_{key}": value for key, value in inside._asdict().items()}
        return found

    def save(self, path: Path, **attributes: str | int | float) -> None:
        """Write `reconstruction`, `target`, `zero_filled`, the references and `mask` as HDF5, with attributes.

        The file is both a reconstruction and a target for fastMRI's evaluate.py: it has `reconstruction_esc`,
        `reconstruction_rss` and the attributes `acquisition`, `max`, `norm` and `patient_id`.
        """
        arrays = {"reconstruction": self.reconstruction, "zero_filled": self.zero_filled, "target": self.target}
        arrays |= {str(name): images for name, images in self.references.items()}
        who = {"site": self.site, "subject": self.piece.subject, "patient_id": self.piece.subject}
        size = {"max": float(self.target.max()), "norm": float(np.linalg.norm(self.target))}
        save_images(path, self.mask, arrays, acquisition=self.piece.contrast or "unknown", **who, **size, **attributes)


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


def reconstruct_coils(
    network: Network,
    kspace: NDArray[np.complex64],
    mask: BoolArray,
    normalise: Normalise,
    settings: CoilSettings = COMBINED,
    maps: Maps = "estimate",
) -> Coils:
    """Images (H, W) of one slice's k-space (coils, H, W), reconstructed and zero-filled, in its units.

    A network that was trained with coils kept takes all of them, with sensitivities from the region that the mask
    leaves complete, as `maps` says. For any other, each coil is reconstructed separately; their root sum of squares is
    returned.

    Raises:
        InputError: sensitivities are needed, and are to come from a file, or cannot be had from that region.
    """
    coils, sampled = torch.from_numpy(np.ascontiguousarray(kspace)), torch.from_numpy(mask)
    with torch.inference_mode():
        if settings.kept:
            needed = settings.target == "combined" or getattr(network, "takes_maps", True)
            one = _of_one_slice(coils, sampled, settings, normalise, maps if needed else None)
            batch = undersample(*one, target=settings.target)
        else:
            batch = undersample(coils, sampled.expand(coils.shape), normalise)
        images, zero_filled = network(*batch.inputs) * batch.scale, batch.zero_filled * batch.scale
    combined = [each[0] if len(each) == 1 else torch.linalg.norm(each, dim=0) for each in (images, zero_filled)]
    return combined[0].numpy(), combined[1].numpy()


def _of_one_slice(
    coils: Tensor, mask: Tensor, settings: CoilSettings, normalise: Normalise, method: Maps | None
) -> tuple[Tensor, Tensor, Normalise, Tensor]:
    """Arguments of `undersample` for a slice of which all coils (C, H, W) are kept, compressed as in training."""
    region = calibration_region(mask)
    calibrating = coils * region
    if isinstance(settings.coils, int):
        matrix = compression(calibrating[None], settings.count(len(coils)))
        coils, calibrating = compressed(coils, matrix), compressed(calibrating, matrix)
    maps = torch.ones_like(coils) if method is None else maps_within(calibrating, region, method)
    return coils[None], mask[None], normalise, maps[None]


def reconstruct_volumes(
    network: Network,
    data: Slices,
    part: Part,
    size: int,
    device: torch.device | str = "cpu",
    references: Sequence[Reference] = (),
) -> Iterator[ReconstructedVolume]:
    """Every volume of a part reconstructed by a network on `device`, `size` slices at a time, then read from there.

    Beside it stand `references`, which are made on the CPU and kept.
    """
    for volume in data.volumes(part, size):
        images: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        batches = list(volume.batches) if references else volume.batches
        with torch.inference_mode():
            for batch in batches:
                output = network(*(_moved(tensor, device) for tensor in batch.inputs))
                images.append((output, batch.scale, batch.target * batch.scale, batch.zero_filled * batch.scale))
            output, scale, *others = (torch.cat(parts) for parts in zip(*images, strict=True))
            reconstruction, target, zero_filled = (part.numpy() for part in (output.cpu() * scale, *others))
        yield ReconstructedVolume(
            site=volume.site,
            piece=volume.piece,
            mask=volume.mask,
            combined=volume.combined,
            reconstruction=reconstruction,
            target=target,
            zero_filled=zero_filled,
            references=references_of(volume, list(batches), references) if references else {},
        )


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device; to a GPU it is copied from pinned memory, so that nothing waits."""
    device = torch.device(device)
    if device.type == "cuda":
        tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
    return tensor.to(device, non_blocking=True)
