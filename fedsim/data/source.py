"""The interface of all importers: a section of the workload that yields a site's volumes."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, ValidatorFunctionWrapHandler, WrapValidator

from fedsim.core.errors import InputError
from fedsim.core.extension import Extension
from fedsim.core.section import InsidePath
from fedsim.core.seeds import derive, numpy_stream
from fedsim.data.discovery import fetched, matching
from fedsim.data.echo import Echo
from fedsim.data.labels import looks_like_label
from fedsim.data.left_out import leave_out
from fedsim.data.names import safe_name, stem
from fedsim.data.reading import reading
from fedsim.data.subjects import SITE, Subject, SubjectPattern, by_file, told_by
from fedsim.mri.geometry import Matrix


@dataclass(frozen=True)
class Volume:
    """One image series of one subject, as read from its file."""

    who: Subject
    """The person scanned; never shared between training, validation and test."""
    name: str
    """Unique within the site and safe as a file name."""
    images: NDArray[np.float32] | NDArray[np.complex64]
    """(slices, H, W), magnitude or complex, or (slices, coils, H, W) complex; in the source's units."""
    origin: str
    """The file or folder it was read from, relative to federation.root."""
    _: KW_ONLY
    contrast: str = ""
    """Its weighting or channel according to the files; empty if unknown."""
    maps: NDArray[np.complex64] | None = None
    """Sensitivities (slices, coils, H, W), if the source holds them."""
    size: tuple[int, int] | None = None  # (h, w) that images are cropped to unless the matrix is native
    combined: int = 0  # coils that the images (slices, H, W) were combined from as they were read
    echo: Echo | None = None  # moved to the middle of the lines as they were read; None: it still is where it was

    @property
    def coils(self) -> int:
        """Number of coils of the scan."""
        return self.images.shape[1] if self.images.ndim == 4 else max(self.combined, 1)

    @property
    def subject(self) -> str:
        """The subject's name."""
        return self.who.name


@dataclass(frozen=True, kw_only=True)
class StoredVolume:
    """What a site's shard says about a volume, without the k-space."""

    name: str
    who: Subject
    origin: str
    slices: tuple[int, ...]
    """Indices in the source; slices without any signal were left out."""
    support: tuple[int, int]
    """H, W of the central samples that come from the source; the rest is zero-padding."""
    contrast: str = ""
    """As in `Volume`."""
    digest: str = ""
    """SHA-256 of the images, independent of the matrix; empty for phantoms."""
    coils: int = 1  # of the source
    phase: bool = True  # of its images; without, k-space is conjugate symmetric
    shape: tuple[int, int] = (0, 0)
    """H, W of the source's images, which boxes refer to; larger ones, if the matrix is native, share their centre."""
    lines: tuple[int, int] | None = None
    """First and end of the phase-encoding lines that were measured; None: all."""

    @property
    def subject(self) -> str:
        """The subject's name."""
        return self.who.name


class Source(Extension):
    """Where a site's images come from."""

    tag: ClassVar[str] = "format"

    format: str

    @abstractmethod
    def identity(self) -> str:
        """Text that identifies the origin of its subjects; their order in a split depends on it."""

    def population(self, who: Subject) -> str:
        """Sources with an equal population use equal names for the same person; by default all named people."""
        return ""

    def resolve(self, seed: int, site: str) -> Self:
        """This source with all values drawn from the seed filled in; sources of files have none."""
        return self

    def foreseen(self, matrix: Matrix) -> list[StoredVolume] | None:
        """The contents of its shard at `matrix`, if known in advance; a host then makes the shard on demand."""
        return None

    @abstractmethod
    def files(self, root: Path) -> list[Path]:
        """The files that `volumes` reads, sorted; with their sizes and times they key the cache.

        Raises:
            InputError: the folder is missing or holds no file of this format.
        """

    def fingerprint(self, root: Path) -> str:
        """Text that is part of the cache key: anything else that `volumes` depends on besides keys and files."""
        return ""

    @abstractmethod
    def volumes(self, root: Path) -> Iterator[Volume]:
        """The site's volumes, one at a time, in an order that depends only on names.

        Raises:
            InputError: a file cannot be read, naming it.
        """


def draws_subjects(source: Source, site: str) -> bool:
    """Whether a site's source, unresolved, takes its subjects from the workload's seed: other people for every seed."""
    return source.resolve(0, site).identity() != source.resolve(1, site).identity()


def volumes_of(source: Source, root: Path) -> Iterator[Volume]:
    """The volumes of a source; those of a user's own class are checked.

    Raises:
        InputError: a user's importer yields something other than volumes, or nothing.
    """
    count = 0
    for count, volume in enumerate(source.volumes(root), start=1):  # noqa: B007 - counted after the loop
        if source.foreign:
            _check(source, volume)
        yield volume
    if source.foreign and not count:
        raise InputError(f"volumes of {source.label} yielded nothing; check what it finds below {root}")


def _check(source: Source, volume: object) -> None:
    """Refuse anything but a valid volume."""
    if not isinstance(volume, Volume):
        raise InputError(f"volumes of {source.label} must yield Volume, not {type(volume).__name__}")
    if not isinstance(volume.who, Subject):
        raise InputError(f"volumes of {source.label}: who of {volume.name} must be a Subject, not {volume.who!r:.60}")
    if not (isinstance(volume.name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", volume.name)):
        rule = "must be letters, digits, '_' and '-' (fedsim.data.names.safe_name makes it so)"
        raise InputError(f"volumes of {source.label}: the name {volume.name!r:.60} {rule}")
    images: Any = volume.images
    array = isinstance(images, np.ndarray)
    if not (array and images.size and (images.ndim, images.dtype.char) in ((3, "f"), (3, "F"), (4, "F"))):
        found = f"{images.dtype} {images.shape}" if array else type(images).__name__
        wanted = f"float32 or complex64 (slices, H, W), or complex64 (slices, coils, H, W), not {found}"
        raise InputError(f"volumes of {source.label}: images of {volume.name} must be {wanted}")


def _pattern_or_word(value: object, word: ValidatorFunctionWrapHandler) -> object:
    """Validate a mapping only as a pattern, so that its error is not hidden by those of the other alternatives."""
    return SubjectPattern.model_validate(value) if isinstance(value, Mapping) else word(value)


class FileSource(Source):
    """A source that reads files below federation.root; each format has one module."""

    path: InsidePath = Field(description="Folder or file of this site, relative to federation.root.")
    subject: Annotated[Literal["auto", "folder", "file", "site"] | SubjectPattern, WrapValidator(_pattern_or_word)] = (
        Field(
            "auto",
            description="What identifies a subject: auto (whatever names a person: BIDS sub-, numbers of known "
            "collections, the file itself, else the top folder), folder (the one that directly holds the file), file "
            "(its name without words for visits and contrasts), site (all of it), or {pattern: ...}.",
        )
    )
    record: ClassVar[str] = ""
    """The name of the format's field for the subject."""

    synthetic_phase: bool = Field(
        False, description="Give magnitudes a smooth random phase, drawn for each volume from the workload's seed."
    )
    _phase_seed: int = PrivateAttr(0)
    nan: Literal["refuse", "zero"] = Field(
        "refuse",
        description="How to treat NaN, which some tools write outside the head: refuse, or zero to read them as 0.",
    )
    negative: Literal["refuse", "shift", "magnitude"] = Field(
        "refuse",
        description="How to treat negative values in images without phase: refuse, shift (make the lowest 0) or "
        "magnitude (drop the sign); undershoots of interpolation, up to 5 % of the highest value, lose their sign.",
    )

    def resolve(self, seed: int, site: str) -> Self:
        """This source with the seed of its synthetic phase set."""
        found = self.model_copy()
        found._phase_seed = derive(seed, "phase", site)
        return found

    def phase_of(self, volume: str) -> np.random.Generator | None:
        """The stream that the phase of a volume is drawn from; None: volumes keep theirs."""
        return numpy_stream(self._phase_seed, volume) if self.synthetic_phase else None

    def fingerprint(self, root: Path) -> str:
        """The seed of the phase, if it has any."""
        return f"phase {self._phase_seed}" if self.synthetic_phase else ""

    def identity(self) -> str:
        """The path."""
        return self.path

    def population(self, who: Subject) -> str:
        """The population of all named subjects; a subject that stands for a whole site is known only by its path."""
        return self.path if who.told == SITE else ""

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of this format's file names, in lower case; "" is a name without one (or with a number as one)."""

    def recognises(self, file: Path) -> bool:
        """Whether a file with one of the suffixes is of this format; by default every one, for finding out a format."""
        return True

    @abstractmethod
    def read(self, root: Path) -> Iterator[Volume]:
        """The volumes for `volumes`, except that names may repeat."""

    def files(self, root: Path) -> list[Path]:
        """Every file of this format at or below `path`."""
        return fetched(self.matching(root))

    def volumes(self, root: Path) -> Iterator[Volume]:
        """What `read` yields, without labels; repeated names get the endings _2, _3 and so on."""
        given: set[str] = set()
        for volume in self.read(root):
            if self.foreign:
                _check(self, volume)
            if volume.coils == 1 and looks_like_label(volume.images):
                leave_out(root / volume.origin, "label by its content")
                continue
            name, copy = volume.name, 1
            while name in given:
                copy += 1
                name = f"{volume.name}_{copy}"
            given.add(name)
            yield replace(volume, name=name)

    def matching(self, root: Path) -> list[Path]:
        """Every file at or below `path` with one of `suffixes`, as `data_files` finds them.

        Raises:
            InputError: the path is missing, it or a link in it leaves `root`, or it holds no such file.
        """
        return matching(self.path, root, self.suffixes)

    def folder(self, file: Path, root: Path) -> str:
        """The folder that directly holds `file`, as a name that differs for equally named folders below `path`."""
        base = root / self.path
        inside = file.parent.relative_to(base).parts if base.is_dir() else ()
        return safe_name("-".join(inside) or file.parent.resolve().name)

    def together(self, file: Path, root: Path) -> tuple[Path, str]:
        """What the slices of one volume share: their folder, and the subject that a pattern finds in their paths."""
        return file.parent, self.who(file, root).name if isinstance(self.subject, SubjectPattern) else ""

    def who(self, file: Path, root: Path, recorded: str = "", alone: str = "") -> Subject:
        """The subject of `file`, identified as the key `subject` says.

        Args:
            file: Below federation.root.
            root: federation.root.
            recorded: For auto: the subject according to the file itself.
            alone: For auto: the subject by the file's name, if no folder names one; empty if it is the whole site.
        """
        base = root / self.path
        with reading(file, "a file that names its subject"):
            match self.subject:
                case "auto":
                    inside = file.parent.relative_to(base).parts if file != base else ()
                    site = (base.parent if file == base else base).resolve().name
                    return told_by(inside, stem(file), site, recorded, self.record, alone)
                case "folder":
                    return Subject.of(self.folder(file, root), "subject: folder")
                case "file":
                    return by_file(stem(file))
                case "site":
                    return Subject("site", SITE, self.path)
                case _:
                    return self.subject.subject(file.relative_to(base).as_posix() if file != base else file.name)
