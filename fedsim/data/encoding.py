"""From a volume's images to k-space: where its echo lies, which lines were measured, and the matrix of a shard."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.data.echo import Echo, Fraction
from fedsim.data.source import Volume
from fedsim.mri.fft import fft2c
from fedsim.mri.geometry import Matrix, centre_crop_or_pad, kspace_at, square


def with_centred_echo(volume: Volume, root: Path) -> tuple[Volume, Fraction | None]:
    """The volume with its echo in the middle of its phase-encoding lines, and what of them was measured; notes both.

    None: all lines were measured, or the images have no phase.
    """
    if volume.echo is not None:
        return volume, volume.echo.measured
    if not np.iscomplexobj(volume.images):
        return volume, None
    echo = Echo.of(volume.images)
    echo.note(root / volume.origin)
    images = volume.images if not echo.off else np.stack([echo.centred(image) for image in volume.images])
    return replace(volume, images=images), echo.measured


def cropped(volume: Volume, matrix: Matrix) -> Volume:
    """The volume cropped to its `size`, unless the matrix is native."""
    if volume.size is None or matrix == "native":
        return volume
    images: NDArray[Any] = centre_crop_or_pad(volume.images, volume.size)
    maps = None if volume.maps is None else centre_crop_or_pad(volume.maps, volume.size)
    return replace(volume, images=images, maps=maps)


def kspace_of(images: NDArray[Any], matrix: Matrix) -> NDArray[np.complex64]:
    """k-space of images (..., H, W): of their square field of view at a matrix, or as it is."""
    if matrix != "native":
        return np.ascontiguousarray(kspace_at(square(images), matrix))
    return fft2c(torch.from_numpy(images.astype(np.complex64, copy=False))).numpy()


def lines_at(
    measured: Fraction | None, images: NDArray[Any], matrix: Matrix, kspace: NDArray[np.complex64]
) -> tuple[int, int] | None:
    """First and end of the measured lines of k-space (..., H, W) that was made from images at a matrix; None: all."""
    if measured is None:
        return None
    width = kspace.shape[-1]
    full = width if matrix == "native" else max(images.shape[-2:])
    first, end = (round(part * full) + width // 2 for part in measured)
    return (max(first, 0), min(end, width)) if first > 0 or end < width else None
