"""All sources of images, told apart by `format`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from fedsim.data.dicom import Dicom
from fedsim.data.fastmri import FastMRI
from fedsim.data.matlab import Matlab
from fedsim.data.nifti import Nifti
from fedsim.data.phantom import PhantomSource
from fedsim.data.source import FileSource
from fedsim.data.tiff import ImageFolder
from fedsim.errors import InputError

AnySource = Annotated[
    FastMRI | Nifti | Dicom | Matlab | ImageFolder | PhantomSource,
    Field(discriminator="format"),
]
"""The section `source` of a site."""


def census(path: Path) -> dict[str, int]:
    """How many files of each format are at or below `path`."""
    return {source.format: count for source in _candidates(path) if (count := _count(source, path.parent))}


def detect(path: Path) -> FileSource:
    """A source for the file or folder `path`, of the format most of its files have; its root is `path.parent`.

    Raises:
        InputError: `path` is missing or holds no file of a known format.
    """
    if not path.exists() or path.name == "..":
        raise InputError(f"{path}: no such file or folder; name one that holds images")
    sources = _candidates(path)
    best = max(sources, key=lambda source: _count(source, path.parent))
    if not _count(best, path.parent):
        endings = ", ".join(suffix for source in sources for suffix in source.suffixes if suffix)
        raise InputError(f"{path}: holds no image; looked for names in {endings} and for DICOM files without a suffix")
    return best


def _candidates(path: Path) -> list[FileSource]:
    named = {"path": path.name}
    images: list[FileSource] = [ImageFolder(format="tiff", **named), ImageFolder(format="png", **named)]
    return [FastMRI(**named), Nifti(**named), Matlab(**named), *images, Dicom(**named)]


def _count(source: FileSource, root: Path) -> int:
    try:
        return len(source.files(root))
    except InputError:
        return 0
