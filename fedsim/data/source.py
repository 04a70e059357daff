"""What every importer offers: a section of the workload that yields a site's volumes."""

import hashlib
import logging
import math
import re
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic import Field

from fedsim.data.left_out import leave_out
from fedsim.errors import InputError
from fedsim.schema import InsidePath, Section, Text


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

    @abstractmethod
    def volumes(self, root: Path) -> Iterator[Volume]:
        """The site's volumes, one at a time, in an order that depends on names alone.

        Raises:
            InputError: a file cannot be read, naming it.
        """


T = TypeVar("T")

Contrast = Text | Annotated[list[Text], Field(min_length=1)] | None
"""One contrast, several, or None for all; what a name means is the format's affair."""

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
            raise InputError(f"{base}: no such file or folder; set federation.root to what holds {self.path!r}")
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


@contextmanager
def reading(file: Path, expected: str) -> Iterator[None]:
    """Put `file` before whatever goes wrong inside, in one line; silence what libraries remark about odd files.

    Raises:
        InputError: the reason given inside, or the library's, followed by what was `expected`.
    """
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            if file.stat().st_size == 0:
                raise InputError(f"is empty; expected {expected}")
            yield
        except InputError as error:
            raise InputError(f"{file}: {one_line(str(error))}") from None
        except Exception as error:  # readers raise nearly everything on a damaged file
            reason = one_line(str(error))[:200] or type(error).__name__
            raise InputError(f"{file}: cannot be read ({reason}); expected {expected}") from error
        finally:
            logging.disable(disabled)


def one_line(text: str) -> str:
    """`text` as a message may show it, whatever a file put into it."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:400]


_HARMLESS = 2**24
_MOST_PACKED = 4096


def afford(file: Path, shape: Sequence[int], itemsize: int) -> None:
    """Refuse an array that `file` cannot really hold, before any memory is taken for it.

    Deflate packs zeros 1032 times, LZW 2600 times, and images far less; a small array does no harm whatever it is.

    Raises:
        InputError: the array is larger than the file can be unpacked to, or than this machine's memory.
    """
    claimed, size = math.prod(shape) * itemsize, file.stat().st_size
    array = " x ".join(map(str, shape)) + f" values of {itemsize} bytes"
    if min(shape, default=0) < 0 or claimed > max(_HARMLESS, _MOST_PACKED * size):
        raise InputError(f"claims to hold {array:.200}, which a file of {size} bytes cannot")
    if claimed > psutil.virtual_memory().total:
        raise InputError(f"holds {array:.200}, more than this machine's memory; cut it into several files")


def pick(labels: Mapping[T, str], contrast: Contrast, fits: Callable[[str, str], bool], where: Path) -> list[T]:
    """The keys of `labels` whose label `fits(label, wanted)` one of the wanted contrasts, in their order.

    Raises:
        InputError: none does; says what there is.
    """
    if contrast is None:
        return list(labels)
    wanted = [contrast] if isinstance(contrast, str) else contrast
    picked = [key for key, label in labels.items() if any(fits(label.lower(), one.lower()) for one in wanted)]
    if not picked:
        there = sorted({one_line(label)[:60] for label in labels.values()}, key=natural)
        more = f" and {len(there) - 8} more" if len(there) > 8 else ""
        raise InputError(f"{where}: holds no contrast {' or '.join(wanted)}; it holds {', '.join(there[:8])}{more}")
    return picked


def stem(file: Path) -> str:
    """The file's name without its suffix, .nii.gz being one."""
    return re.sub(r"(?i)(\.nii)?\.[a-z]\w*$", "", file.name)


def _ends(file: Path, suffixes: tuple[str, ...]) -> bool:
    bare = file.suffix[1:].isdecimal() or not file.suffix
    return ("" in suffixes and bare) or file.name.lower().endswith(tuple(filter(None, suffixes)))


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key that puts slice_9 before slice_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,300})", text)]


def safe_name(text: str) -> str:
    """`text` with everything but letters, digits, '_' and '-' replaced, fit to be a file name; at most 100 long.

    Raises:
        InputError: nothing is left.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    if not name:
        raise InputError(f"{text!r:.60}: cannot be made into a name of letters, digits, '_' and '-'")
    return name if len(name) <= 100 else f"{name[:91]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
