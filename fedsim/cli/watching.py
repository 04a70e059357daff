"""Following a run or a study from its folder alone, whoever writes it: this machine, or a cluster on a shared disk."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from fedsim.cli.watch_run import WatchedRun
from fedsim.cli.watch_study import WatchedStudy
from fedsim.core.errors import InputError

# A file system tells of changes only on the machine that makes them, and Python's own library cannot listen to it.
_LOOK_EVERY_S = 1.0


class Watched(Protocol):
    """What can be followed."""

    @property
    def done(self) -> bool:
        """Nothing more will come."""

    def look(self) -> None:
        """Read what has changed since the last look.

        Raises:
            DamagedError: a file cannot be read.
        """

    def news(self) -> list[str]:
        """A line for each thing that has come since the last call."""

    def view(self) -> RenderableType:
        """All there is to see now."""


def watched(path: Path) -> Watched:
    """The run or the study in a folder.

    Raises:
        InputError: there is neither.
    """
    if not path.exists():
        raise InputError(f"{path}: no such folder; name the folder (--out) of a run or a study that has begun")
    return WatchedStudy(path) if (path / "study.yaml").is_file() else WatchedRun(path)


def follow(subject: Watched, console: Console) -> None:
    """Show it until it is done: live on a terminal, a line for each piece of news elsewhere."""
    if not console.is_terminal:
        for _ in _looks(subject):
            for line in subject.news():
                console.print(line, highlight=False, soft_wrap=True, markup=False)
        return
    with Live(console=console, auto_refresh=False) as live:
        for _ in _looks(subject):
            live.update(subject.view(), refresh=True)


def _looks(subject: Watched) -> Iterator[None]:
    """One look after the other, the last when it is done."""
    subject.look()
    yield
    while not subject.done:
        time.sleep(_LOOK_EVERY_S)
        subject.look()
        yield
