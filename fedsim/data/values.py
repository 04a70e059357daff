"""Handling of values that no magnitude image should have: NaN, negative values, and slices without content."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsim.core.errors import InputError
from fedsim.data.left_out import leave_out
from fedsim.data.source import Source, Volume

_SMALLEST, _LARGEST = 1e-15, 1e15  # float32 can hold the squares of values in between, and sums of them
_OVERSHOOT = 0.05  # of the largest value: interpolation may lead this far below 0
_FLAT = 1e-6  # of the largest value: smaller variation is rounding


def settled(volume: Volume, source: Source, root: Path) -> Volume:
    """The volume with finite values, and if they are magnitudes without negative ones, as the source's keys say.

    Raises:
        InputError: it has values that the keys do not allow for, or far from those of any scanner.
    """
    file = root / volume.origin
    volume = _without_negatives(_without_nan(volume, file, getattr(source, "nan", "refuse")), file, source)
    largest = float(np.abs(volume.images).max(initial=0))
    if largest and not _SMALLEST < largest < _LARGEST:
        raise InputError(f"{volume.origin}: its largest value is {largest:.3g}; scale it to between 1e-15 and 1e15")
    return volume


def _without_nan(volume: Volume, file: Path, nan: str) -> Volume:
    finite = np.isfinite(volume.images)
    if finite.all():
        return volume
    unknown = np.isnan(volume.images)
    if nan != "zero" or (finite | unknown).sum() < finite.size:
        remedy = "replace them or leave the file out" if nan == "zero" else "set nan: zero to read NaN as 0"
        raise InputError(f"{volume.origin}: has NaN or infinite values ({finite.size - finite.sum():,}); {remedy}")
    share = unknown.sum() / unknown.size
    leave_out(file, "volume's NaN values, read as 0", f"({unknown.sum():,} values, {share:.1%})")
    return replace(volume, images=np.where(unknown, volume.images.dtype.type(0), volume.images))


def _without_negatives(volume: Volume, file: Path, source: Source) -> Volume:
    images, rule = volume.images, getattr(source, "negative", "magnitude")
    lowest = 0.0 if np.iscomplexobj(images) else float(images.min(initial=0))
    if lowest == 0:
        return volume
    below = f"({int((images < 0).sum()):,} values, lowest {lowest:.3g}, highest {float(images.max()):.3g})"
    if rule == "shift":
        leave_out(file, "zero level, moved to the lowest value", below)
        return replace(volume, images=images - np.float32(lowest))
    if rule == "refuse" and -lowest > _OVERSHOOT * float(images.max()):
        raise InputError(
            f"{volume.origin}: has negative values {below}, but magnitudes have none (z-scored?); set negative: shift "
            "to make the lowest 0, or negative: magnitude to drop the sign"
        )
    leave_out(file, "volume's sign of negative values", below)
    return replace(volume, images=np.abs(images))


def showing(volume: Volume, root: Path) -> list[int]:
    """Indices of the slices with content: a constant slice has nothing to reconstruct."""
    kept = []
    for index, image in enumerate(volume.images):
        spread = float(np.abs(image - image.flat[:1]).max(initial=0))  # an axis may have no pixel
        if spread > _FLAT * float(np.abs(image).max(initial=0)):
            kept.append(index)
        else:
            reason = "slice without variation" if image.any() else "empty slice"
            leave_out(root / volume.origin, reason, f"slice {index} of {volume.name}")
    return kept
