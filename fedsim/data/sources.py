"""All sources of images, distinguished by `format`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, SerializeAsAny, WrapValidator

from fedsim.core.errors import InputError
from fedsim.core.extension import Catalogue
from fedsim.core.files import absent
from fedsim.data.formats.arrays import NumpyArrays
from fedsim.data.formats.bart import Bart
from fedsim.data.formats.calgary_campinas import CalgaryCampinas
from fedsim.data.formats.cmrxrecon import CMRxRecon
from fedsim.data.formats.dataset import DatasetSource
from fedsim.data.formats.dicom import Dicom
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.formats.m4raw import M4Raw
from fedsim.data.formats.matlab import Matlab
from fedsim.data.formats.mrd import MRD
from fedsim.data.formats.nifti import Nifti
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.formats.skm_tea import SKMTEA
from fedsim.data.formats.tiff import ImageFolder
from fedsim.data.source import FileSource, Source, Volume


class Unread(Source):
    """A user's own source, of which only the keys are read: its file is not executed."""

    model_config = ConfigDict(extra="allow")

    def identity(self) -> str:
        """Its keys."""
        return self.model_dump_json()

    def files(self, root: Path) -> list[Path]:
        """Not known."""
        raise InputError(f"source.format: {self.format} is a user's own, whose code was not run")

    def volumes(self, root: Path) -> Iterator[Volume]:
        """Not known."""
        raise InputError(f"source.format: {self.format} is a user's own, whose code was not run")


_Images = Nifti | Dicom | Matlab | ImageFolder | DatasetSource | PhantomSource
_Raw = FastMRI | M4Raw | MRD | CalgaryCampinas | CMRxRecon | SKMTEA | Bart | NumpyArrays
_Known = _Raw | _Images
SOURCES = Catalogue(
    key="source.format", base=Source, unread=Unread, known=_Known.__args__, group="fedsim.sources", noun="format"
)
"""Where a user's own importers are found."""

AnySource = Annotated[
    SerializeAsAny[Annotated[_Known, Field(discriminator="format")]], WrapValidator(SOURCES.read), SOURCES
]
"""The section `source` of a site."""


def formats_at(path: Path) -> list[tuple[FileSource, int]]:
    """A source for every format that the file or folder `path` holds, with its number of files, most files first.

    The sources' root is `path.parent`.

    Raises:
        InputError: `path` is missing or holds no file of a known format.
    """
    if not path.exists() or path.name == "..":
        raise InputError(f"{path}: {absent(path)}")
    candidates, found, told = _candidates(path), [], set[str]()
    for source in candidates:
        if not told & {*source.suffixes} and (count := _count(source, path.parent)):
            found.append((source, count))
            told |= {*source.suffixes}
    if not found:
        endings = ", ".join(dict.fromkeys(suffix for source in candidates for suffix in source.suffixes if suffix))
        raise InputError(f"{path}: holds no image; looked for names in {endings} and for DICOM files without a suffix")
    return sorted(found, key=lambda pair: pair[1], reverse=True)


def detect(path: Path) -> FileSource:
    """A source for `path`, of the format that most of its files have; see `formats_at`."""
    return formats_at(path)[0][0]


def _candidates(path: Path) -> list[FileSource]:
    """A source of every format; of formats with the same suffix, those that know their files by their content first."""
    named = {"path": path.name}
    images: list[FileSource] = [ImageFolder(format="tiff", **named), ImageFolder(format="png", **named)]
    by_content = [kind(**named) for kind in (MRD, CalgaryCampinas, SKMTEA, M4Raw, CMRxRecon)]
    others = [kind(**named) for kind in (FastMRI, Nifti, Matlab, Bart, NumpyArrays)]
    return [*by_content, *others, *images, Dicom(**named)]


def _count(source: FileSource, root: Path) -> int:
    """Number of files, 0 unless the first one is of this format."""
    try:
        files = source.files(root)
    except InputError:
        return 0
    return len(files) if source.recognises(files[0]) else 0
