"""What becomes of the coils of raw data when a shard is made: combined, kept, or compressed to fewer virtual coils."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.source import Source, Volume
from fedsim.mri.coils import combined, compressed, compression, estimated_maps, normalised
from fedsim.mri.espirit import espirit_maps
from fedsim.mri.fft import fft2c, ifft2c
from fedsim.mri.geometry import kspace_at, square

Coils = Literal["combine", "keep"] | Annotated[int, Field(ge=1, le=256)]
Target = Literal["rss", "combined"]
Maps = Literal["estimate", "espirit", "file"]
ComplexArray = NDArray[np.complex64]


@dataclass(frozen=True)
class CoilSettings:
    """How a run treats the coils of raw data."""

    coils: Coils = "combine"
    """combine them, keep them, or compress them to this number."""
    target: Target = "rss"
    """How the images of several coils become one: root sum of squares, or weighted by their sensitivities."""

    @property
    def kept(self) -> bool:
        """Whether shards have a coil axis, and maps."""
        return self.coils != "combine"

    def under(self, protocol: str) -> str:
        """A metrics' protocol as tables say it: with the target, if it is not the root sum of squares."""
        return protocol if self.target == "rss" else f"{protocol}, {self.target} target"

    def count(self, coils: int) -> int:
        """Coils in the shard of a source with `coils`; 0: combined."""
        if isinstance(self.coils, int):
            return min(self.coils, coils)
        return coils if self.kept else 0


COMBINED = CoilSettings()


def as_kept(volume: Volume, source: Source, settings: CoilSettings) -> Volume:
    """The volume with its coils combined, (slices, H, W), or kept, (slices, coils, H, W), as the settings say."""
    if not settings.kept:
        return volume if volume.images.ndim == 3 else replace(volume, images=_combined(volume, source, settings.target))
    if volume.images.ndim == 3:
        return replace(volume, images=volume.images[:, None])
    count = settings.count(volume.coils)
    return _compressed(volume, count) if count < volume.coils or isinstance(settings.coils, int) else volume


def maps_at(kspace: ComplexArray, volume: Volume, kept: list[int], source: Source) -> ComplexArray:
    """Sensitivities of the coils of k-space (slices, coils, H, W) that is stored.

    Args:
        kspace: Fully sampled.
        volume: Its volume, with its coils kept.
        kept: The slices of the volume that are stored.
        source: Says where sensitivities come from.

    Raises:
        InputError: they are to come from the source's files, which hold none that suit.
    """
    if method_of(source) != "file":
        return _estimated(kspace, method_of(source))
    images = torch.from_numpy(kspace_at(square(_of_files(volume)[kept]), (kspace.shape[-2], kspace.shape[-1])))
    return normalised(ifft2c(images)).numpy()


def maps_within(kspace: torch.Tensor, region: torch.Tensor, method: Maps) -> torch.Tensor:
    """Sensitivities (coils, H, W) of k-space (coils, H, W) that is zero outside its calibration region (H, W) bool.

    Raises:
        InputError: they are to come from a file, or the region is too small for ESPIRiT.
    """
    if method == "file":
        what = "undersampled k-space takes none from files; train with maps: estimate or espirit to use it here"
        raise InputError(f"source.maps: file: {what}")
    if method == "espirit" and len(kspace) > 1:
        sides = int(region.any(-1).sum()), int(region.any(-2).sum())
        return torch.from_numpy(espirit_maps(kspace.numpy(), sides))
    return estimated_maps(kspace) if len(kspace) > 1 else torch.ones_like(kspace)


def method_of(source: Source) -> Maps:
    """Where the sensitivities of a source's coils come from."""
    return cast(Maps, getattr(source, "maps", "estimate"))


def _of_files(volume: Volume) -> ComplexArray:
    maps, remedy = volume.maps, "set the source's maps to estimate or espirit"
    if maps is None:
        raise InputError(f"{volume.origin}: holds no sensitivity maps; {remedy}")
    if maps.shape != volume.images.shape:
        raise InputError(f"{volume.origin}: its maps are {maps.shape}, its images {volume.images.shape}; {remedy}")
    if not (np.isfinite(maps).all() and maps.any()):
        what = "only 0" if np.isfinite(maps).all() else "NaN or infinite values"
        raise InputError(f"{volume.origin}: its sensitivity maps have {what}; {remedy}")
    return maps


def _estimated(kspace: ComplexArray, method: str) -> ComplexArray:
    if kspace.shape[1] == 1:
        return np.ones_like(kspace)
    if method == "espirit":
        return np.stack([espirit_maps(one) for one in kspace])
    return np.stack([estimated_maps(torch.from_numpy(one)).numpy() for one in kspace])


def by_slice(source: Source, settings: CoilSettings) -> bool:
    """Whether coils can be combined as each slice is read, because nothing else of their volume is needed for it."""
    maps_of_volume = settings.target == "combined" and method_of(source) == "file"
    return not settings.kept and not maps_of_volume


def one_of(images: ComplexArray, source: Source, target: Target) -> NDArray[Any]:
    """A slice (H, W) of its coils' images (coils, H, W), combined with sensitivities that are estimated."""
    image: NDArray[Any] = images[0]
    if len(images) > 1 and target == "rss":
        image = np.linalg.norm(images, axis=0)
    elif len(images) > 1:
        maps = _estimated(_spectrum(images).numpy()[None], method_of(source))[0]
        image = combined(torch.from_numpy(images), torch.from_numpy(maps)).numpy()
    return image


def _combined(volume: Volume, source: Source, target: Target) -> NDArray[np.float32] | ComplexArray:
    """(slices, H, W): magnitudes by root sum of squares, or complex, weighted by sensitivities."""
    if volume.coils > 1 and target == "combined" and method_of(source) == "file":
        images: ComplexArray = combined(torch.from_numpy(volume.images), torch.from_numpy(_of_files(volume))).numpy()
        return images
    return np.stack([one_of(one, source, target) for one in volume.images])


def _compressed(volume: Volume, coils: int) -> Volume:
    matrix = compression(_spectrum(volume.images), coils)
    maps = None if volume.maps is None else _virtual(_of_files(volume), matrix)
    return replace(volume, images=_virtual(volume.images, matrix), maps=maps)


def _spectrum(images: NDArray[Any]) -> torch.Tensor:
    """k-space of images, whose values that are no numbers are taken for 0: they are judged when all is done."""
    return fft2c(torch.from_numpy(images if np.isfinite(images).all() else np.nan_to_num(images, posinf=0, neginf=0)))


def _virtual(values: NDArray[Any], matrix: torch.Tensor) -> ComplexArray:
    return np.stack([compressed(torch.from_numpy(one), matrix).numpy() for one in values])
