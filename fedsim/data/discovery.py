"""Finding the data files below a site's folder; all others are left out and reported."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fedsim.core.errors import InputError
from fedsim.core.files import absent
from fedsim.data.labels import label_folder, named_label
from fedsim.data.left_out import leave_out, lines, noting
from fedsim.data.names import natural, stem

_DERIVED = {"derivatives", "sourcedata", "__macosx"}
"""Names of folders that hold processed versions of the images beside them."""


def matching(path: str, root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Every file at or below `path`, relative to `root`, with one of the suffixes, as `data_files` finds them.

    Raises:
        InputError: the path is missing, it or a link in it leaves `root`, or it holds no such file.
    """
    base = root / path
    if not base.exists():
        there = f"; or set federation.root to what holds {path!r}" if not _begins(base, root) else ""
        raise InputError(f"{base}: {absent(base)}{there}")
    if not base.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{base}: leads outside federation.root ({root})")
    with noting(root) as left_out:
        found = data_files(base, root, lambda file: _ends(file, suffixes))
    for one in left_out:
        leave_out(root / one.path, one.reason)
    if not found:
        endings = ", ".join(suffix or "nothing" for suffix in suffixes)
        besides = f" ({'; '.join(lines(left_out))})" if left_out else ""
        raise InputError(f"{base}: holds no image file with the suffix {endings}{besides}; set path or format")
    return found


def data_files(base: Path, root: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """Every wanted file at or below `base`, in natural order, including links to missing files.

    Hidden files and folders, derivatives, labels, files of other formats, and links to files already read are left out.
    Links are followed if they stay inside `root`; every file is read once.

    Raises:
        InputError: a link leads outside `root`, or is broken and may stand for a folder; or a folder cannot be read.
    """
    found = [base] if base.is_file() else [*_Tree(base, root, wanted)]
    kept = [file for file in found if not _is_other(file, wanted) and not _is_label(file, base)]
    return sorted(sorted(kept), key=lambda file: natural(str(file.relative_to(root))))


def fetched(files: list[Path]) -> list[Path]:
    """The files, after checking that all exist.

    Raises:
        InputError: one is a broken link.
    """
    missing = next((file for file in files if not file.exists()), None)
    if missing is not None:
        raise InputError(f"{missing}: is a link to a file that is not there; fetch it, or remove the link")
    return files


def _begins(path: Path, root: Path) -> bool:
    """Whether the first folder of a path below `root` exists, so that `root` is probably right."""
    parts = path.relative_to(root).parts
    return len(parts) > 1 and (root / parts[0]).exists()


def _ends(file: Path, suffixes: tuple[str, ...]) -> bool:
    bare = file.suffix[1:].isdecimal() or not file.suffix
    return ("" in suffixes and bare) or file.name.lower().endswith(tuple(filter(None, suffixes)))


def _is_other(file: Path, wanted: Callable[[Path], bool]) -> bool:
    if wanted(file):
        return False
    if file.is_symlink() and not file.exists() and not file.suffix:
        fetched([file])
    leave_out(file, f"file of another kind ({''.join(file.suffixes[-1:]).lower() or 'without a suffix'})")
    return True


def _is_label(file: Path, base: Path) -> bool:
    folders = file.parent.relative_to(base).parts if file != base else ()
    if file != base and (named_label(stem(file), file.parent.name) or any(map(label_folder, folders))):
        leave_out(file, "label by its name")
        return True
    return False


class _Tree:
    """The files below a folder, each once: first those that lie there, then those that links lead to."""

    def __init__(self, base: Path, root: Path, wanted: Callable[[Path], bool]) -> None:
        self._base, self._root, self._wanted = base, root.resolve(), wanted
        self._links: list[Path] = []
        self._seen: set[str] = set()

    def __iter__(self) -> Iterator[Path]:
        yield from self._below(self._base)
        while self._links:
            links, self._links = self._links, []
            for link in links:
                yield from self._followed(link)

    def _below(self, folder: Path) -> Iterator[Path]:
        real = os.path.realpath(folder)
        if real in self._seen:
            leave_out(folder, "folder that is read already by another path")
            return
        self._seen.add(real)
        for entry in self._entries(folder):
            if entry.name.startswith("."):
                leave_out(entry, "hidden file or folder")
            elif entry.is_symlink():
                self._links.append(entry)
            elif not entry.is_dir():
                yield from self._once(entry, f"{real}{os.sep}{entry.name}")
            elif not _is_derived(entry):
                yield from self._below(entry)

    def _followed(self, link: Path) -> Iterator[Path]:
        real = os.path.realpath(link)
        if not link.exists():
            yield link
        elif link.is_dir():
            if not _is_derived(link):
                self._check_inside(link, real)
                yield from self._linked_folder(link, real)
        elif not self._wanted(link):
            yield link
        else:
            self._check_inside(link, real)
            yield from self._once(link, real)

    def _once(self, file: Path, real: str) -> Iterator[Path]:
        if real in self._seen:
            leave_out(file, "file that is read already by another path")
            return
        self._seen.add(real)
        yield file

    def _entries(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError as error:
            raise InputError(f"{folder}: cannot be read ({error.strerror})") from error

    def _linked_folder(self, link: Path, real: str) -> Iterator[Path]:
        if self._base.resolve().is_relative_to(real):
            leave_out(link, "link to a folder that it lies in")
        else:
            yield from self._below(link)

    def _check_inside(self, link: Path, real: str) -> None:
        if not Path(real).is_relative_to(self._root):
            raise InputError(f"{link}: leads outside federation.root ({self._root})")


def _is_derived(folder: Path) -> bool:
    if folder.name.lower() in _DERIVED:
        leave_out(folder, "folder of derivatives or copies")
        return True
    return False
