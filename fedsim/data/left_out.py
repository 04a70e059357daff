"""What an importer leaves out of a site, counted and listed.

Code that skips something (a label, a file of another format, an empty slice) makes one call:

    leave_out(file, "label by its name")
    leave_out(file, "slice without variation", "slice 3")

Code that reads a source collects these notes:

    with noting(root) as left_out:
        for volume in source.volumes(root): ...
    for line in lines(left_out): ...

Shards store what was noted while they were written, `Federation.left_out` has it for all sites, and `data inspect`,
`data import`, `plan` and a run's log report it. Outside `noting`, `leave_out` does nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

_MOST_NAMES = 3


@dataclass(frozen=True)
class LeftOut:
    """A file, a folder or a part of a file that is not read."""

    path: str
    """Path relative to federation.root; ends in a slash if it is a folder."""
    reason: str
    """Description in the singular: "label by its name", "hidden folder", "slice without variation"."""
    part: str = ""
    """The part of the file, such as "slice 3"; empty for all of it."""


class Notes(Iterable[LeftOut]):
    """Everything left out so far, each item once, in the order in which it was found."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[tuple[str, str], LeftOut] = {}

    def __iter__(self) -> Iterator[LeftOut]:
        return iter(list(self._found.values()))

    def add(self, path: Path, reason: str, part: str) -> None:
        """See `leave_out`."""
        inside = path.relative_to(self._root) if path.is_relative_to(self._root) else path
        name = inside.as_posix() + ("/" if path.is_dir() else "")
        self._found.setdefault((name, part), LeftOut(name, reason, part))


_NOTES: ContextVar[Notes | None] = ContextVar("left_out", default=None)


@contextmanager
def noting(root: Path) -> Iterator[Notes]:
    """Collect what is left out within the block, by paths relative to `root`; an outer collection does not see it."""
    notes = Notes(root)
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def leave_out(path: Path, reason: str, part: str = "") -> None:
    """Note that `path` (or a part of it) is not read; the first reason given is kept."""
    notes = _NOTES.get()
    if notes is not None:
        notes.add(path, reason, part)


def lines(left_out: Iterable[LeftOut]) -> list[str]:
    """A line per reason: the number of items, the reason, and the names of the first few."""
    by_reason: dict[str, list[str]] = {}
    for one in left_out:
        by_reason.setdefault(one.reason, []).append(" ".join(filter(None, [one.path, one.part])))
    return [f"left out: {len(names)} x {reason}: {some(names)}" for reason, names in by_reason.items()]


def some(names: list[str]) -> str:
    """The first few of many names, and the number of the others."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
