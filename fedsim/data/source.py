"""What every importer offers: a section of the workload that yields a site's volumes."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator

from fedsim.core.errors import InputError
from fedsim.core.extension import Extension
from fedsim.core.files import absent
from fedsim.core.section import InsidePath
from fedsim.data.discovery import data_files, fetched
from fedsim.data.labels import looks_like_label
from fedsim.data.left_out import leave_out, lines, noting
from fedsim.data.names import safe_name, stem
from fedsim.data.reading import reading
from fedsim.data.subjects import SITE, Subject, SubjectPattern, by_file, told_by


@dataclass(frozen=True)
class Volume:
    """One image series of one subject, as its file holds it."""

    who: Subject
    """Who was scanned; never shared between training, validation and test."""
    name: str
    """Unique within the site and safe as a file name."""
    images: NDArray[np.float32] | NDArray[np.complex64]
    """(slices, H, W): magnitude, or complex where the source has phase; in the source's units."""
    origin: str
    """The file or folder it was read from, relative to federation.root."""
    _: KW_ONLY
    contrast: str = ""
    """What its files say of its weighting or channel; empty where they say nothing."""

    @property
    def subject(self) -> str:
        """The subject's name."""
        return self.who.name


@dataclass(frozen=True, kw_only=True)
class StoredVolume:
    """What a site's shard says about a volume without its k-space."""

    name: str
    who: Subject
    origin: str
    slices: tuple[int, ...]
    """Indices in the source; slices without any signal were left out."""
    support: tuple[int, int]
    """H, W of the samples around the centre that the source really had."""
    contrast: str = ""
    """As `Volume` has it."""
    digest: str = ""
    """Of the images as they were read, whatever the matrix; empty where they are known before they are made."""

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
        """What its subjects come from; their places in the order drawn for a split depend on it."""

    def population(self, who: Subject) -> str:
        """Within which `who` is one person, whatever site reads it; by default all people that have names."""
        return ""

    def resolve(self, seed: int, site: str) -> Self:
        """This source with everything that is drawn from the seed written out; files have nothing to draw."""
        return self

    def foreseen(self, matrix: tuple[int, int]) -> list[StoredVolume] | None:
        """What its shard at `matrix` will hold, if that is known before it is made; a host then makes it on demand."""
        return None

    @abstractmethod
    def files(self, root: Path) -> list[Path]:
        """The files that `volumes` reads, sorted; with their sizes and times they key the cache.

        Raises:
            InputError: the folder is missing or holds no file of this format.
        """

    def fingerprint(self, root: Path) -> str:
        """What else keys the cache: whatever `volumes` depends on that is neither a key nor a file."""
        return ""

    @abstractmethod
    def volumes(self, root: Path) -> Iterator[Volume]:
        """The site's volumes, one at a time, in an order that depends on names alone.

        Raises:
            InputError: a file cannot be read, naming it.
        """


def volumes_of(source: Source, root: Path) -> Iterator[Volume]:
    """The volumes of a source; those of a user's own are looked at first.

    Raises:
        InputError: a user's importer yields what is no volume, or nothing.
    """
    count = 0
    for count, volume in enumerate(source.volumes(root), start=1):  # noqa: B007 - counted after the loop
        if source.foreign:
            _check(source, volume)
        yield volume
    if source.foreign and not count:
        raise InputError(f"volumes of {source.label} yielded nothing; look at what it finds below {root}")


def _check(source: Source, volume: object) -> None:
    """Refuse what is no volume."""
    if not isinstance(volume, Volume):
        raise InputError(f"volumes of {source.label} must yield Volume, not {type(volume).__name__}")
    if not isinstance(volume.who, Subject):
        raise InputError(f"volumes of {source.label}: who of {volume.name} must be a Subject, not {volume.who!r:.60}")
    if not (isinstance(volume.name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", volume.name)):
        raise InputError(
            f"volumes of {source.label}: the name {volume.name!r:.60} must be letters, digits, '_' and '-' "
            "(fedsim.data.names.safe_name makes it so)"
        )
    images: Any = volume.images
    array = isinstance(images, np.ndarray)
    if not (array and images.ndim == 3 and images.size and images.dtype in (np.float32, np.complex64)):
        found = f"{images.dtype} {images.shape}" if array else type(images).__name__
        wanted = "float32 or complex64 (slices, H, W)"
        raise InputError(f"volumes of {source.label}: images of {volume.name} must be {wanted}, not {found}")


def _pattern_or_word(value: object, word: ValidatorFunctionWrapHandler) -> object:
    """Validate a mapping only as a pattern, so that its error is not hidden behind the words that it does not match."""
    return SubjectPattern.model_validate(value) if isinstance(value, Mapping) else word(value)


class FileSource(Source):
    """A source that reads files below federation.root; one file of code a format."""

    path: InsidePath = Field(description="Folder or file of this site, relative to federation.root.")
    subject: Annotated[Literal["auto", "folder", "file", "site"] | SubjectPattern, WrapValidator(_pattern_or_word)] = (
        Field(
            "auto",
            description="What identifies a subject: auto (what names a person: BIDS sub-, numbers of known "
            "collections, what the file records, else the top folder), the folder that directly holds the file, the "
            "file (its name without words for visits and contrasts), the whole site, or {pattern: ...}.",
        )
    )
    record: ClassVar[str] = ""
    """What the format calls the subject that its files record."""

    nan: Literal["refuse", "zero"] = Field(
        "refuse",
        description="What becomes of NaN, as some tools write outside the head: refuse, or zero to read them as 0.",
    )
    negative: Literal["refuse", "shift", "magnitude"] = Field(
        "refuse",
        description="What becomes of negative values in images without phase: refuse, shift (make the lowest 0) or "
        "magnitude (drop the sign); an overshoot of interpolation, up to 5 % of the highest value, loses its sign.",
    )

    def identity(self) -> str:
        """The path."""
        return self.path

    def population(self, who: Subject) -> str:
        """All subjects that have names; one that stands for the whole site is known only by its path."""
        return self.path if who.told == SITE else ""

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """Endings of this format's file names, in lower case; "" is a name without one (or with a number for one)."""

    @abstractmethod
    def read(self, root: Path) -> Iterator[Volume]:
        """The volumes as `volumes` gives them, except that names may repeat."""

    def files(self, root: Path) -> list[Path]:
        """Every file of this format at or below `path`, as `matching` finds them."""
        return fetched(self.matching(root))

    def volumes(self, root: Path) -> Iterator[Volume]:
        """What `read` yields, without labels; a name that has been given is followed by _2, _3 and so on."""
        given: set[str] = set()
        for volume in self.read(root):
            if self.foreign:
                _check(self, volume)
            if looks_like_label(volume.images):
                leave_out(root / volume.origin, "label by its content")
                continue
            name, copy = volume.name, 1
            while name in given:
                copy += 1
                name = f"{volume.name}_{copy}"
            given.add(name)
            yield replace(volume, name=name)

    def matching(self, root: Path) -> list[Path]:
        """Every file at or below `path` whose name ends in one of `suffixes`, as `data_files` finds them.

        Raises:
            InputError: the path is missing, it or a link in it leaves `root`, or it holds no such file.
        """
        base = root / self.path
        if not base.exists():
            there = f"; or set federation.root to what holds {self.path!r}" if not _begins(base, root) else ""
            raise InputError(f"{base}: {absent(base)}{there}")
        if not base.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{base}: leads outside federation.root ({root})")
        with noting(root) as left_out:
            found = data_files(base, root, lambda file: _ends(file, self.suffixes))
        for one in left_out:
            leave_out(root / one.path, one.reason)
        if not found:
            endings = ", ".join(suffix or "nothing" for suffix in self.suffixes)
            there = "; ".join(lines(left_out))
            besides = f" ({there})" if there else ""
            raise InputError(f"{base}: holds no image file whose name ends in {endings}{besides}; set path or format")
        return found

    def folder(self, file: Path, root: Path) -> str:
        """The folder that directly holds `file`, as a name that tells equally named folders below `path` apart."""
        base = root / self.path
        inside = file.parent.relative_to(base).parts if base.is_dir() else ()
        return safe_name("-".join(inside) or file.parent.resolve().name)

    def together(self, file: Path, root: Path) -> tuple[Path, str]:
        """What the slices of one volume share: their folder, and the subject that a pattern finds in their paths."""
        return file.parent, self.who(file, root).name if isinstance(self.subject, SubjectPattern) else ""

    def who(self, file: Path, root: Path, recorded: str = "", alone: str = "") -> Subject:
        """The subject of `file`, as the key `subject` says.

        Args:
            file: Below federation.root.
            root: federation.root.
            recorded: For auto: what the file itself says about who it is.
            alone: For auto: who it is by its own name if no folder tells; empty where that would be all of the site.
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


def _begins(path: Path, root: Path) -> bool:
    """Whether the first folder of a path below `root` is there, so that `root` is probably right."""
    parts = path.relative_to(root).parts
    return len(parts) > 1 and (root / parts[0]).exists()


def _ends(file: Path, suffixes: tuple[str, ...]) -> bool:
    bare = file.suffix[1:].isdecimal() or not file.suffix
    return ("" in suffixes and bare) or file.name.lower().endswith(tuple(filter(None, suffixes)))
