"""What becomes of the coils of raw data when a shard is made: combined, kept, or compressed to fewer virtual coils."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

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
        InputError: they are to come from the source's files, which hold none.
    """
    if _method(source) != "file":
        return _estimated(kspace, _method(source))
    images = torch.from_numpy(kspace_at(square(_of_files(volume)[kept]), (kspace.shape[-2], kspace.shape[-1])))
    return normalised(ifft2c(images)).numpy()


def _method(source: Source) -> str:
    return str(getattr(source, "maps", "estimate"))


def _of_files(volume: Volume) -> ComplexArray:
    if volume.maps is None:
        raise InputError(f"{volume.origin}: holds no sensitivity maps; set the source's maps to estimate or espirit")
    return volume.maps


def _estimated(kspace: ComplexArray, method: str) -> ComplexArray:
    if kspace.shape[1] == 1:
        return np.ones_like(kspace)
    if method == "espirit":
        return np.stack([espirit_maps(one) for one in kspace])
    return np.stack([estimated_maps(torch.from_numpy(one)).numpy() for one in kspace])


def _combined(volume: Volume, source: Source, target: Target) -> NDArray[np.float32] | ComplexArray:
    """(slices, H, W): magnitudes by root sum of squares, or complex, weighted by sensitivities."""
    if volume.coils == 1:
        return volume.images[:, 0]
    if target == "rss":
        return np.stack([np.linalg.norm(one, axis=0) for one in volume.images])
    images = torch.from_numpy(volume.images)
    given = _method(source) == "file"
    maps = _of_files(volume) if given else _estimated(fft2c(images).numpy(), _method(source))
    return combined(images, torch.from_numpy(maps)).numpy()


def _compressed(volume: Volume, coils: int) -> Volume:
    matrix = compression(fft2c(torch.from_numpy(volume.images)), coils)
    maps = None if volume.maps is None else _virtual(volume.maps, matrix)
    return replace(volume, images=_virtual(volume.images, matrix), maps=maps)


def _virtual(values: NDArray[Any], matrix: torch.Tensor) -> ComplexArray:
    return np.stack([compressed(torch.from_numpy(one), matrix).numpy() for one in values])
