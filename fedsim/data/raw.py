"""Sources that hold nothing but k-space: an importer says which scans there are and how a slice of each is read."""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, PrivateAttr

from fedsim.core.errors import InputError
from fedsim.data.coils import CoilSettings, Target, one_of, suitable
from fedsim.data.echo import Echo
from fedsim.data.kspace import KSpaceSource, RawVolume, truth
from fedsim.data.reading import reading
from fedsim.data.source import Source, Volume
from fedsim.data.subjects import Subject
from fedsim.mri.geometry import Matrix, centre_crop_or_pad


def _some(value: tuple[int, int] | None) -> tuple[int, int] | None:
    if value and value[0] >= value[1]:
        raise ValueError(f"{list(value)} takes no slice: [start, stop] needs start < stop")
    return value


SliceRange = Annotated[tuple[Annotated[int, Field(ge=0)], int] | None, AfterValidator(_some)]
"""[start, stop) of the slices to take, or None for all."""


@dataclass(frozen=True, kw_only=True)
class Scan(RawVolume):
    """The k-space of one volume, read slice by slice when it is needed."""

    file: Path
    """Its file, for messages; the first of several."""
    who: Subject
    contrast: str = ""
    """As in `Volume`."""
    maps: Callable[[], Iterator[NDArray[np.complex64]]] | None = None
    """Reads the sensitivities (coils, H, W) of each slice that the file holds; None: it holds none."""


class RawSource(KSpaceSource):
    """The base of importers of raw data: `scans` is all that they define."""

    expected: ClassVar[str]
    """Description of a valid file, for messages."""
    _target: Target | None = PrivateAttr(None)
    """How a slice's coil images (coils, h, w) become one (h, w) as they are read; None: they are kept."""
    _native: bool = PrivateAttr(False)
    """Whether they are combined at their own size."""

    @abstractmethod
    def scans(self, root: Path) -> Iterator[Scan]:
        """The scans of the site, in an order that depends only on names.

        Raises:
            InputError: a file cannot be read, naming it.
        """

    def read(self, root: Path) -> Iterator[Volume]:
        """The images of every scan; (slices, coils, H, W) if it has several coils.

        Raises:
            InputError: a scan is undersampled, so that its images are no ground truth, or cannot be read.
        """
        moved = self._native or self._target == "combined"  # of a root sum of squares at another matrix nothing changes
        twice = self.scans(root) if moved else itertools.repeat(None)
        for scan, again in zip(self.scans(root), twice, strict=False):
            echo = None if again is None else self._echo(again)
            coils, images = 0, []
            maps: list[NDArray[np.complex64]] = []
            for own, kspace in zip(self._maps_of(scan), scan.slices, strict=False):  # maps first, whose end is a check
                coils = len(kspace)
                images.append(self._image(scan, kspace, own, echo))
                if own is not None and images[-1].ndim == 3:
                    maps.append(own)
            yield Volume(
                scan.who,
                scan.name,
                np.stack(images),
                scan.file.relative_to(root).as_posix(),
                contrast=scan.contrast,
                maps=np.stack(maps) if maps else None,
                size=scan.size,
                combined=coils if images[0].ndim == 2 else 0,
                echo=echo,
            )

    def raw(self, root: Path) -> Iterator[RawVolume]:
        """The k-space of every scan."""
        return self.scans(root)

    def _maps_of(self, scan: Scan) -> Iterable[NDArray[np.complex64] | None]:
        """The sensitivities (coils, H, W) of each slice that its file holds, if they are needed."""
        if scan.maps is None or self.maps != "file" or self._target == "rss":
            return itertools.repeat(None)
        return suitable(scan.maps(), str(scan.file)) if self._target else scan.maps()

    def _image(
        self, scan: Scan, kspace: NDArray[Any], maps: NDArray[np.complex64] | None, echo: Echo | None
    ) -> NDArray[Any]:
        """The image (h, w), or the coils' images (coils, h, w), of a slice's k-space."""
        image = self._whole(scan, kspace)
        with np.errstate(all="ignore"):  # values are judged later
            image = image if echo is None else echo.centred(image)
            if self._target is None or image.ndim == 2:
                return image
            if not self._native:
                image = centre_crop_or_pad(image, scan.size)
                maps = None if maps is None else centre_crop_or_pad(maps, scan.size)
            return one_of(image, self, self._target, str(scan.file), maps)

    def _echo(self, scan: Scan) -> Echo:
        """The scan's echo, which all its slices tell, one after the other."""
        echo = Echo.of(self._whole(scan, kspace) for kspace in scan.slices)
        echo.note(scan.file)
        return echo

    def _whole(self, scan: Scan, kspace: NDArray[Any]) -> NDArray[Any]:
        with reading(scan.file, self.expected):
            return truth(kspace, scan.size)

    def each(self, file: Path, indices: range, read: Callable[[int], NDArray[Any]]) -> Iterator[NDArray[np.complex64]]:
        """Slices (coils, H, W) of a file, one at a time; what `read` raises becomes a message that names the file."""
        for index in indices:
            with reading(file, self.expected):
                kspace: NDArray[np.complex64] = read(index).astype(np.complex64, copy=False)
            yield kspace


def sparing(source: Source, matrix: Matrix, settings: CoilSettings) -> Source:
    """The source; of raw data whose coils are combined, one that combines each slice's as soon as they are read."""
    if settings.kept or not isinstance(source, RawSource):
        return source
    found = source.model_copy()
    found._target, found._native = settings.target, matrix == "native"
    return found


def taken(slices: SliceRange, count: int) -> range:
    """Indices of the slices to take out of `count`.

    Raises:
        InputError: there are fewer.
    """
    if slices is None:
        return range(count)
    if slices[1] > count:
        raise InputError(f"has {count} slices; slices {list(slices)} needs more")
    return range(*slices)
