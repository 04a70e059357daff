"""Following a run or a study from its folder alone, whether this machine or a cluster writes it to a shared disk."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from fedsim.cli.watch_run import WatchedRun
from fedsim.cli.watch_study import WatchedStudy
from fedsim.core.errors import InputError
from fedsim.engine.record.run_folder import is_run

# File systems report changes only on the machine that makes them, and Python's standard library cannot listen.
_LOOK_EVERY_S = 1.0


class Watched(Protocol):
    """A run or a study that can be followed."""

    @property
    def done(self) -> bool:
        """Whether nothing more will happen."""

    def look(self) -> None:
        """Read what has changed since the last look.

        Raises:
            DamagedError: a file cannot be read.
        """

    def news(self) -> list[str]:
        """A line for each event since the last call."""

    def view(self) -> RenderableType:
        """The present state, to be shown on a terminal."""


def watched(path: Path) -> Watched:
    """The run or the study in a folder that exists.

    Raises:
        InputError: the folder holds neither.
    """
    if (path / "study.yaml").is_file():
        return WatchedStudy(path)
    if not is_run(path):
        raise InputError(f"{path}: is neither a run nor a study; to watch a folder of them, add --web")
    return WatchedRun(path)


def follow(subject: Watched, console: Console) -> None:
    """Show it until it is done: live on a terminal, a line for each piece of news elsewhere."""
    if not console.is_interactive:
        for _ in _looks(subject):
            for line in subject.news():
                console.print(line, highlight=False, soft_wrap=True, markup=False)
        return
    with Live(console=console, auto_refresh=False) as live:
        for _ in _looks(subject):
            live.update(subject.view(), refresh=True)


def _looks(subject: Watched) -> Iterator[None]:
    """Yield after every look until all is done."""
    subject.look()
    yield
    while not subject.done:
        time.sleep(_LOOK_EVERY_S)
        subject.look()
        yield
