"""Regions of interest: boxes around findings, in a table as fastMRI+ has it.

fastMRI+ (Zhao et al., Scientific Data 9:152, 2022) lists `file` (its name without suffix), `slice` (from 0), `x`, `y`,
`width` and `height` [pixels] of a box whose corner x, y is at its left and its top in the image turned upside down.
Rows without x describe a whole study and are left out; other columns are not read.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.data.names import stem
from fedsim.data.source import StoredVolume
from fedsim.data.split import Box
from fedsim.mri.geometry import Matrix

_COLUMNS = ("x", "y", "width", "height")
Boxes = dict[str, list[tuple[int, float, float, float, float]]]
"""Slice in the source, x, y, width and height of each box, by the name of the file."""


def read_boxes(path: Path) -> Boxes:
    """The boxes of a table.

    Raises:
        InputError: there is no such file, or it is not such a table.
    """
    if not path.is_file():
        raise InputError(f"metrics.boxes: {path}: no such file")
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> Boxes:
    try:
        table = pd.read_csv(path, dtype={"file": str})
    except (ValueError, OSError) as error:
        raise InputError(f"metrics.boxes: {path}: is not a table ({' '.join(str(error).split())[:80]})") from error
    missing = [name for name in ("file", "slice", *_COLUMNS) if name not in table]
    if missing:
        needed = "file, slice, x, y, width and height, as fastMRI+'s tables have them"
        raise InputError(f"metrics.boxes: {path}: has no column {missing[0]}; it needs {needed}")
    boxes: Boxes = {}
    for line, row in enumerate(table.to_dict("records"), start=2):
        if not pd.isna(row["x"]):
            boxes.setdefault(str(row["file"]), []).append(_checked(row, f"metrics.boxes: {path}, line {line}"))
    return boxes


def _checked(row: Mapping[Hashable, Any], where: str) -> tuple[int, float, float, float, float]:
    try:
        number, x, y, width, height = (float(row[name]) for name in ("slice", *_COLUMNS))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    if not (number >= 0 and number.is_integer() and min(width, height) > 0 and math.isfinite(x + y + width + height)):
        raise InputError(f"{where}: slice must be 0 or more, width and height above 0")
    return int(number), x, y, width, height


def boxes_of(volume: StoredVolume, boxes: Boxes, matrix: Matrix) -> tuple[Box, ...]:
    """A volume's boxes at a matrix; those of slices that the shard left out are left out.

    Raises:
        InputError: a box lies outside the image.
    """
    found = []
    for number, x, y, width, height in boxes.get(stem(Path(volume.origin)), ()):
        (rows, columns), what = volume.shape, f"slice {number}, x {x:g}, y {y:g}, {width:g} x {height:g}"
        if not (0 <= x <= columns - width and 0 <= y <= rows - height):
            outside = f"a box ({what}) lies outside its image of {rows} x {columns}"
            raise InputError(f"metrics.boxes: {volume.origin}: {outside}")
        if number in volume.slices:
            side = max(rows, columns)
            fields, sizes = (volume.support, volume.support) if matrix == "native" else ((side, side), matrix)
            vertical = _at((rows - y - height, rows - y), rows, fields[0], sizes[0])
            horizontal = _at((x, x + width), columns, fields[1], sizes[1])
            found.append((volume.slices.index(number), *vertical, *horizontal))
    return tuple(found)


def _at(span: tuple[float, float], have: int, field: int, wanted: int) -> tuple[int, int]:
    """First and last index at a matrix of a span of pixels of an image, at least one pixel long.

    Args:
        span: Along one axis of the image.
        have: Size of the image as read.
        field: Size of the field of view that the matrix shows, in the image's pixels; both have their centre at n // 2.
        wanted: Size of the matrix.
    """
    start, stop = (wanted // 2 + (end - have // 2) * wanted / field for end in span)
    first = min(max(0, round(start)), wanted - 1)
    return first, min(max(round(stop), first + 1), wanted)


def region_of(boxes: Sequence[Box], start: int, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """(slices, H, W) bool of `shape`: the pixels in any box, of slices from `start` on."""
    region = np.zeros(shape, np.bool_)
    for number, top, bottom, left, right in boxes:
        if 0 <= number - start < shape[0]:
            region[number - start, top:bottom, left:right] = True
    return region
