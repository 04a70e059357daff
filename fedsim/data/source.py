"""What every importer offers: a section of the workload that yields a site's volumes."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.data.left_out import leave_out
from fedsim.data.names import natural, safe_name, stem
from fedsim.data.reading import reading
from fedsim.errors import InputError
from fedsim.files import absent
from fedsim.schema import InsidePath, Section


@dataclass(frozen=True)
class Volume:
    """One image series of one subject, as its file holds it."""

    subject: str
    """Who was scanned; never shared between training, validation and test."""
    name: str
    """Unique within the site and safe as a file name."""
    images: NDArray[np.float32] | NDArray[np.complex64]
    """(slices, H, W): magnitude, or complex where the source has phase; in the source's units."""
    origin: str
    """The file or folder it was read from, relative to federation.root."""
    contrast: str = ""
    """What its files say of its weighting or channel; empty where they say nothing."""


@dataclass(frozen=True)
class StoredVolume:
    """What a site's shard says about a volume without its k-space."""

    name: str
    subject: str
    origin: str
    slices: tuple[int, ...]
    """Indices in the source; slices without any signal were left out."""
    support: tuple[int, int]
    """H, W of the samples around the centre that the source really had."""
    contrast: str = ""
    """As `Volume` has it."""
    digest: str = ""
    """Of the images as they were read, whatever the matrix; empty where they are known before they are made."""


class Source(Section):
    """Where a site's images come from."""

    format: str

    @abstractmethod
    def identity(self) -> str:
        """What its subjects come from: sites of one identity must divide a subject alike."""

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


LABELS = ("_seg", "-seg", "_mask")
"""Endings of the segmentations that public data sets keep beside their images; they are never read as images."""


class FileSource(Source):
    """A source that reads files below federation.root; one file of code a format."""

    path: InsidePath = Field(description="Folder or file of this site, relative to federation.root.")
    subject: Literal["auto", "folder", "file", "site"] = Field(
        "auto",
        description="What identifies a subject: auto (what the format records), the folder that directly holds the "
        "file, the file, or the whole site.",
    )

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

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """Endings of this format's file names, in lower case; "" is a name without one (or with a number for one)."""

    @abstractmethod
    def read(self, root: Path) -> Iterator[Volume]:
        """The volumes as `volumes` gives them, except that names may repeat."""

    def files(self, root: Path) -> list[Path]:
        """Every file of this format at or below `path`, as `matching` finds them."""
        return self.matching(root)

    def volumes(self, root: Path) -> Iterator[Volume]:
        """What `read` yields; a name that has been given is followed by _2, _3 and so on."""
        given: set[str] = set()
        for volume in self.read(root):
            name, copy = volume.name, 1
            while name in given:
                copy += 1
                name = f"{volume.name}_{copy}"
            given.add(name)
            yield replace(volume, name=name)

    def matching(self, root: Path) -> list[Path]:
        """Every file at or below `path` whose name ends in one of `suffixes`, in natural order, without labels.

        Raises:
            InputError: the path is missing, it or a file leaves `root` through a link, or it holds no such file.
        """
        base = root / self.path
        if not base.exists():
            there = f"; or set federation.root to what holds {self.path!r}" if not _begins(base, root) else ""
            raise InputError(f"{base}: {absent(base)}{there}")
        if not base.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{base}: leads outside federation.root ({root})")
        found = [base] if base.is_file() else [p for p in base.rglob("*") if p.is_file() and not p.name.startswith(".")]
        found = [p for p in found if _ends(p, self.suffixes)]
        for label in [p for p in found if stem(p).lower().endswith(LABELS)]:
            leave_out(label, "label by its name")
            found.remove(label)
        if not found:
            endings = ", ".join(suffix or "nothing" for suffix in self.suffixes)
            raise InputError(f"{base}: holds no image file whose name ends in {endings}; set path or format")
        inside = root.resolve()
        astray = next((p for p in found if not p.resolve().is_relative_to(inside)), None)
        if astray is not None:
            raise InputError(f"{astray}: leads outside federation.root ({root})")
        return sorted(sorted(found), key=lambda p: natural(str(p.relative_to(root))))

    def folder(self, file: Path, root: Path) -> str:
        """The folder that directly holds `file`, as a name that tells equally named folders below `path` apart."""
        base = root / self.path
        inside = file.parent.relative_to(base).parts if base.is_dir() else ()
        return safe_name("-".join(inside) or file.parent.resolve().name)

    def who(self, file: Path, root: Path, recorded: str) -> str:
        """The subject of `file`, as the key `subject` says; `recorded` is what the format holds, for auto."""
        match self.subject:
            case "auto":
                with reading(file, "a file that names its subject"):
                    return safe_name(recorded)
            case "folder":
                return self.folder(file, root)
            case "file":
                return safe_name(stem(file))
            case "site":
                return "site"


def _begins(path: Path, root: Path) -> bool:
    """Whether the first folder of a path below `root` is there, so that `root` is probably right."""
    parts = path.relative_to(root).parts
    return len(parts) > 1 and (root / parts[0]).exists()


def _ends(file: Path, suffixes: tuple[str, ...]) -> bool:
    bare = file.suffix[1:].isdecimal() or not file.suffix
    return ("" in suffixes and bare) or file.name.lower().endswith(tuple(filter(None, suffixes)))
