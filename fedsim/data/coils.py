"""What becomes of the coils of raw data when a shard is made: combined, kept, or compressed to fewer virtual coils."""

import itertools
from collections.abc import Iterable, Iterator
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

    def keeps_phase(self, volume: Volume) -> bool:
        """Whether the images of a volume stay complex, if they are; a root sum of squares of several coils does not."""
        return self.kept or self.target == "combined" or volume.images.ndim == 3

    def count(self, coils: int) -> int:
        """Coils in the shard of a source with `coils`; 0: combined."""
        if isinstance(self.coils, int):
            return min(self.coils, coils)
        return coils if self.kept else 0


COMBINED = CoilSettings()
_REMEDY = "set the source's maps to estimate or espirit"


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


def suitable(maps: Iterable[ComplexArray], origin: str) -> Iterator[ComplexArray]:
    """Sensitivities (coils, H, W) that files hold, slice by slice, as they are.

    Raises:
        InputError: they have values that are no numbers, or, once all have been read, nothing but 0.
    """
    empty = True
    for one in maps:
        if not np.isfinite(one).all():
            raise InputError(f"{origin}: its sensitivity maps have NaN or infinite values; {_REMEDY}")
        empty = empty and not one.any()
        yield one
    if empty:
        raise InputError(f"{origin}: its sensitivity maps have only 0; {_REMEDY}")


def _of_files(volume: Volume) -> ComplexArray:
    maps = volume.maps
    if maps is None:
        raise InputError(f"{volume.origin}: holds no sensitivity maps; {_REMEDY}")
    if maps.shape != volume.images.shape:
        raise InputError(f"{volume.origin}: its maps are {maps.shape}, its images {volume.images.shape}; {_REMEDY}")
    list(suitable(maps, volume.origin))
    return maps


def _estimated(kspace: ComplexArray, method: str) -> ComplexArray:
    if kspace.shape[1] == 1:
        return np.ones_like(kspace)
    if method == "espirit":
        return np.stack([espirit_maps(one) for one in kspace])
    return np.stack([estimated_maps(torch.from_numpy(one)).numpy() for one in kspace])


def one_of(
    images: ComplexArray, source: Source, target: Target, origin: str, maps: ComplexArray | None = None
) -> NDArray[Any]:
    """A slice (H, W) of its coils' images (coils, H, W), combined with maps of that shape, or with estimated ones.

    Raises:
        InputError: its maps are to come from files, and there are none, or of another shape.
    """
    if len(images) == 1:
        return np.asarray(images[0])
    if target == "rss":
        return np.asarray(np.linalg.norm(images, axis=0))
    if method_of(source) != "file":
        weights = torch.from_numpy(_estimated(_spectrum(images).numpy()[None], method_of(source))[0])
    elif maps is None:
        raise InputError(f"{origin}: holds no sensitivity maps; {_REMEDY}")
    elif maps.shape != images.shape:
        raise InputError(f"{origin}: its maps are {maps.shape}, its images {images.shape}; {_REMEDY}")
    else:
        weights = normalised(torch.from_numpy(maps))
    return np.asarray(combined(torch.from_numpy(images), weights).numpy())


def _combined(volume: Volume, source: Source, target: Target) -> NDArray[np.float32] | ComplexArray:
    """(slices, H, W): magnitudes by root sum of squares, or complex, weighted by sensitivities."""
    by_file = volume.coils > 1 and target == "combined" and method_of(source) == "file"
    maps = _of_files(volume) if by_file else itertools.repeat(None)
    each = zip(volume.images, maps, strict=False)
    return np.stack([one_of(one, source, target, volume.origin, own) for one, own in each])


def _compressed(volume: Volume, coils: int) -> Volume:
    matrix = compression(_spectrum(volume.images), coils)
    maps = None if volume.maps is None else _virtual(_of_files(volume), matrix)
    return replace(volume, images=_virtual(volume.images, matrix), maps=maps)


def _spectrum(images: NDArray[Any]) -> torch.Tensor:
    """k-space of images, whose values that are no numbers are taken for 0: they are judged when all is done."""
    return fft2c(torch.from_numpy(images if np.isfinite(images).all() else np.nan_to_num(images, posinf=0, neginf=0)))


def _virtual(values: NDArray[Any], matrix: torch.Tensor) -> ComplexArray:
    return np.stack([compressed(torch.from_numpy(one), matrix).numpy() for one in values])
