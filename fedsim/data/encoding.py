"""From a volume's images to k-space: where its echo lies, which lines were measured, and the matrix of a shard."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.data.left_out import leave_out
from fedsim.data.source import Volume
from fedsim.mri.fft import fft2c, ifft2c
from fedsim.mri.geometry import Matrix, centre_crop_or_pad, kspace_at, square

Fraction = tuple[float, float]
"""Ends of what was measured along the phase encoding, from -0.5 to 0.5 of the width of k-space; the echo is at 0."""

_EMPTY = 1e-6  # of the strongest line: what the rounding of a transform leaves of lines that are zero
_OFF_CENTRE = 1 / 32  # of the width: echoes closer to the middle are taken to be there


def with_centred_echo(volume: Volume, root: Path) -> tuple[Volume, Fraction | None]:
    """The volume with its echo in the middle of its phase-encoding lines, and what of them was measured.

    Lines that were not measured are zero at the edges of k-space, as partial Fourier leaves them; both are noted. None:
    all were measured, or the images have no phase.
    """
    if not np.iscomplexobj(volume.images):
        return volume, None
    profile = np.zeros(volume.images.shape[-1])
    for image in volume.images:
        kspace = fft2c(torch.from_numpy(image))
        profile += kspace.abs().square().reshape(-1, len(profile)).sum(0).double().numpy()
    width = len(profile)
    off = int(profile.argmax()) - width // 2
    off = off if abs(off) > width * _OFF_CENTRE else 0
    there = np.flatnonzero(profile > _EMPTY**2 * profile.max())
    if not len(there) or not np.isfinite(profile).all():
        return volume, None
    first, end = max(int(there[0]) - off, 0), min(int(there[-1]) + 1 - off, width)
    if off:
        volume = replace(volume, images=np.stack([_rolled(image, off) for image in volume.images]))
        leave_out(
            root / volume.origin, "volume's echo that was off the centre, moved there", f"(by {-off} of {width} lines)"
        )
    if end - first == width:
        return volume, None
    leave_out(root / volume.origin, "volume's lines that were not measured", f"({width - (end - first)} of {width})")
    return volume, ((first - width // 2) / width, (end - width // 2) / width)


def _rolled(image: NDArray[Any], off: int) -> NDArray[np.complex64]:
    """An image (..., H, W) whose k-space lines are moved by -off; those beyond the edge are lost."""
    kspace = torch.roll(fft2c(torch.from_numpy(image)), -off, dims=-1)
    kspace[..., slice(-off, None) if off > 0 else slice(0, -off)] = 0
    rolled: NDArray[np.complex64] = ifft2c(kspace).numpy()
    return rolled


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
