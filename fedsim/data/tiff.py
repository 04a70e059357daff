"""TIFF and PNG files: folders of slices, or TIFF stacks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import PIL.Image
import tifffile
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from fedsim.data.names import natural, safe_name, stem
from fedsim.data.reading import afford, reading
from fedsim.data.source import FileSource, Volume
from fedsim.errors import InputError

_EXPECTED = "a TIFF or PNG image"
_SUFFIXES = {"tiff": (".tif", ".tiff"), "png": (".png",)}
Channel = Annotated[int, Field(ge=0)]


def _no_repeats(channels: list[int]) -> list[int]:
    if len(set(channels)) < len(channels):
        raise ValueError(f"{channels} repeats a channel; name each once")
    return channels


class ImageFolder(FileSource):
    """A volume a folder, its files the slices in order of the last number in their names; a stack is one by itself.

    The subject is the folder that directly holds the files.
    """

    format: Literal["tiff", "png"] = Field(description="tiff (.tif, .tiff) or png files.")
    channel: Channel | Annotated[list[Channel], Field(min_length=1), AfterValidator(_no_repeats)] = Field(
        0, description="Colour channel, from 0; a list makes a volume of each. Grey images have channel 0 alone."
    )

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.tif and .tiff, or .png."""
        return _SUFFIXES[self.format]

    def read(self, root: Path) -> Iterator[Volume]:
        """A volume a folder or stack and channel, in natural order of the folders."""
        channels = [self.channel] if isinstance(self.channel, int) else self.channel
        for name, files in self._stacks(root):
            subject = self.who(files[0], root, self.folder(files[0], root))
            origin = files[0] if len(files) == 1 else files[0].parent
            for channel in channels:
                full = name if isinstance(self.channel, int) else f"{name}_ch{channel}"
                yield Volume(
                    subject, full, _images(files, channel), origin.relative_to(root).as_posix(), f"channel {channel}"
                )

    def _stacks(self, root: Path) -> Iterator[tuple[str, list[Path]]]:
        """Each volume's name and files, in the order of its slices."""
        folders: dict[Path, list[Path]] = {}
        for file in self.files(root):
            folders.setdefault(file.parent, []).append(file)
        for files in folders.values():
            alone = [file for file in files if self.subject == "file" or _is_stack(file)]
            slices = sorted((file for file in files if file not in alone), key=_slice_number)
            yield from ((safe_name(stem(file)), [file]) for file in alone)
            if slices:
                yield self.folder(slices[0], root), slices


def _slice_number(file: Path) -> tuple[int, list[tuple[int, str]]]:
    numbers = re.findall(r"\d+", stem(file))
    return int(numbers[-1]) if numbers else -1, natural(file.name)


def _images(files: list[Path], channel: int) -> NDArray[np.float32]:
    """Images (slices, H, W) of one channel of all files, in the order given."""
    images: list[NDArray[np.float32]] = []
    for file in files:
        with reading(file, _EXPECTED):
            pages = _pages(file)
            if channel >= pages.shape[-1]:
                raise InputError(f"has {pages.shape[-1]} channels; channel {channel} counts from 0 and is missing")
            images.append(pages[..., channel].astype(np.float32))
            if images[-1].shape[1:] != images[0].shape[1:]:
                sizes = f"{images[-1].shape[1:]}, but its folder began with {images[0].shape[1:]}"
                raise InputError(f"is {sizes}; the slices of one folder must have one size")
    return np.concatenate(images)


def _is_stack(file: Path) -> bool:
    if file.suffix.lower() == ".png":
        return False
    with reading(file, _EXPECTED), _opened(file) as tiff:
        return len(tiff.pages) > 1


def _opened(file: Path) -> tifffile.TiffFile:
    """The file alone: an OME header may name others, anywhere."""
    return tifffile.TiffFile(file, _multifile=False)


def _pages(file: Path) -> NDArray[Any]:
    """All pixels of a file (pages, H, W, channels)."""
    if file.suffix.lower() == ".png":
        with PIL.Image.open(file, formats=["PNG"]) as image:
            afford(file, (*image.size, len(image.getbands())), 4)
            pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
        return pixels.reshape(1, *pixels.shape[:2], -1)
    with _opened(file) as tiff:
        if len(tiff.series) != 1:
            raise InputError(f"has {len(tiff.series)} kinds of pages; its pages must have one size")
        series: Any = tiff.series[0]
        for shape in (series.shape, series.keyframe.chunks):
            afford(file, shape, series.dtype.itemsize)
        return _ordered(series.asarray(), series.axes)


def _ordered(pixels: NDArray[Any], axes: str) -> NDArray[Any]:
    """(pages, H, W, channels) of pixels with named axes: Y, X, S or C for channels, one more for pages."""
    pages = [i for i, name in enumerate(axes) if name not in "YXSC"]
    channels = [i for i, name in enumerate(axes) if name in "SC"]
    if len(pages) > 1 or len(channels) > 1:
        raise InputError(f"has axes {axes} {pixels.shape}; at most one for pages and one for channels can be read")
    ordered = pixels.transpose(*pages, axes.index("Y"), axes.index("X"), *channels)
    ordered = ordered if pages else ordered[None]
    return ordered if channels else ordered[..., None]
