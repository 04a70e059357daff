"""TIFF and PNG files: folders of slices, or TIFF stacks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import PIL.Image
import tifffile
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedsim.core.errors import InputError
from fedsim.data.chosen import Choice, Names, check_number, label, numbers
from fedsim.data.labels import looks_like_label
from fedsim.data.left_out import leave_out
from fedsim.data.names import natural, safe_name, stem
from fedsim.data.reading import afford, reading
from fedsim.data.source import FileSource, Volume

_EXPECTED = "a TIFF or PNG image"
_SUFFIXES = {"tiff": (".tif", ".tiff"), "png": (".png",)}


class ImageFolder(FileSource):
    """One volume per folder, with its files as slices, ordered by the last number in their names; or per stack."""

    format: Literal["tiff", "png"] = Field(description="tiff (.tif, .tiff) or png files.")
    channel: Choice = Field(
        None,
        description="Channel of images in colour or of several contrasts, from 0, or by its name in `channels`; a list "
        "makes a volume of each. null: the only one; if channels differ, one must be chosen.",
    )
    channels: Names = Field({}, description="Names of the channels by number, such as {0: T1, 1: FLAIR}.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        numbers(self.channel, self.channels)
        return self

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.tif and .tiff, or .png."""
        return _SUFFIXES[self.format]

    def read(self, root: Path) -> Iterator[Volume]:
        """One volume per folder or stack and channel, in natural order of the folders."""
        channels: list[int | None] = [*numbers(self.channel, self.channels)] or [None]
        for name, files in self._stacks(root):
            who = self.who(files[0], root)
            origin = files[0] if len(files) == 1 else files[0].parent
            for channel in channels:
                contrast = label("channel", channel, self.channels)
                ending = contrast.replace("channel ", "ch") if isinstance(self.channel, list) else ""
                full = safe_name("_".join(filter(None, [name, ending])))
                yield Volume(who, full, _images(files, channel), origin.relative_to(root).as_posix(), contrast=contrast)

    def channels_at(self, root: Path) -> int:
        """The number of channels of the first file; 1 if they are all equal."""
        file = self.files(root)[0]
        with reading(file, _EXPECTED):
            return len(_apart(_pages(file)[0])[0, 0, 0])

    def _stacks(self, root: Path) -> Iterator[tuple[str, list[Path]]]:
        """Each volume's name and files, in the order of its slices."""
        folders: dict[tuple[Path, str], list[Path]] = {}
        for file in self.files(root):
            folders.setdefault(self.together(file, root), []).append(file)
        for files in folders.values():
            alone = [file for file in files if self.subject == "file" or _is_stack(file)]
            slices = sorted(_no_labels([file for file in files if file not in alone]), key=_slice_number)
            yield from ((safe_name(stem(file)), [file]) for file in alone)
            if slices:
                yield self.folder(slices[0], root), slices


def _no_labels(slices: list[Path]) -> list[Path]:
    """The files of a folder without labels that are named after the others: 1b.png, 2b.png beside 1.png."""
    alike: dict[str, list[Path]] = {}
    for file in slices:
        alike.setdefault(re.sub(r"\d+", "", stem(file)), []).append(file)
    if len(alike) < 2:
        return slices
    labels = [files for files in alike.values() if looks_like_label(_images(files, 0))]
    if len(labels) == len(alike):
        return slices
    left = {file for files in labels for file in files}
    for file in sorted(left):
        leave_out(file, "label by its content")
    return [file for file in slices if file not in left]


def _slice_number(file: Path) -> tuple[int, list[tuple[int, str]]]:
    numbers = re.findall(r"\d+", stem(file))
    return int(numbers[-1]) if numbers else -1, natural(file.name)


def _images(files: list[Path], channel: int | None) -> NDArray[np.float32]:
    """Images (slices, H, W) of one channel of all files, in the given order; None is the only channel."""
    images: list[NDArray[np.float32]] = []
    for file in files:
        with reading(file, _EXPECTED):
            pages, inverted = _pages(file)
            if channel is None:
                pages = _apart(pages)
                if pages.shape[-1] > 1:
                    raise InputError(
                        f"has {pages.shape[-1]} channels that differ; set channel to one of them, from 0, or a list"
                    )
            check_number(channel or 0, pages.shape[-1], "channel")
            images.append(pages[..., channel or 0].astype(np.float32))
            if images[-1].shape[1:] != images[0].shape[1:]:
                sizes = f"{images[-1].shape[1:]}, but its folder began with {images[0].shape[1:]}"
                raise InputError(f"is {sizes}; the slices of one folder must have one size")
    stack = np.concatenate(images)
    return stack.max() - stack if inverted else stack


def _apart(pages: NDArray[Any]) -> NDArray[Any]:
    """The distinct channels (pages, H, W, channels): one if all are equal; opacity is dropped."""
    if pages.shape[-1] in (2, 4) and (pages[..., -1] == pages[..., -1].max()).all():
        pages = pages[..., :-1]
    return pages[..., :1] if (pages == pages[..., :1]).all() else pages


def _is_stack(file: Path) -> bool:
    if file.suffix.lower() == ".png":
        return False
    with reading(file, _EXPECTED), _opened(file) as tiff:
        return len(tiff.pages) > 1


def _opened(file: Path) -> tifffile.TiffFile:
    """The file alone: an OME header could name any other files."""
    return tifffile.TiffFile(file, _multifile=False)


def _pages(file: Path) -> tuple[NDArray[Any], bool]:
    """All pixels of a file (pages, H, W, channels), with its colour map applied; and whether its lowest is white."""
    if file.suffix.lower() == ".png":
        with PIL.Image.open(file, formats=["PNG"]) as image:
            afford(file, (*image.size, len(image.getbands())), 4)
            pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
        return pixels.reshape(1, *pixels.shape[:2], -1), False
    with _opened(file) as tiff:
        if len(tiff.series) != 1:
            raise InputError(f"has {len(tiff.series)} kinds of pages; all pages must have the same size")
        series: Any = tiff.series[0]
        for shape in (series.shape, series.keyframe.chunks):
            afford(file, shape, series.dtype.itemsize)
        pixels = _ordered(series.asarray(), series.axes)
        if series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
            colours = np.asarray(series.keyframe.colormap, np.float32) / 257  # (3, entries) of 16 bits, shown as 8
            pixels = np.moveaxis(colours[:, pixels[..., 0]], 0, -1)
        return pixels, series.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE


def _ordered(pixels: NDArray[Any], axes: str) -> NDArray[Any]:
    """(pages, H, W, channels) from pixels with named axes: Y, X, S or C for channels, any other for pages."""
    pages = [i for i, name in enumerate(axes) if name not in "YXSC"]
    channels = [i for i, name in enumerate(axes) if name in "SC"]
    if len(pages) > 1 or len(channels) > 1:
        raise InputError(f"has axes {axes} {pixels.shape}; at most one for pages and one for channels can be read")
    ordered = pixels.transpose(*pages, axes.index("Y"), axes.index("X"), *channels)
    ordered = ordered if pages else ordered[None]
    return ordered if channels else ordered[..., None]
