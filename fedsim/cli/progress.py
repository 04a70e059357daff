"""Live progress: bars on a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from fedsim.core.text import duration
from fedsim.engine.host.messages import Row
from fedsim.engine.observer import Observer
from fedsim.engine.record.log import round_figures, round_text
from fedsim.workload.schema import Workload


class LiveProgress(Observer):
    """Bars for sites, rounds and clients on a terminal."""

    def __init__(self, workload: Workload, progress: Progress) -> None:
        self._progress = progress
        self._rounds = workload.training.rounds
        self._sites = progress.add_task("sites", total=len(workload.listed_sites), note="importing")
        self._round_bar = progress.add_task("rounds", total=self._rounds, note="", visible=False)
        self._client_bar = progress.add_task("clients", total=None, note="", visible=False)
        self._clock = _Clock(self._rounds)

    def site_ready(self, site: str) -> None:
        """Advance the bar of sites."""
        self._progress.update(self._sites, advance=1, note=site)

    def round_begins(self, round_: int, clients: int) -> None:
        """Start the bar of clients again."""
        self._clock.begin(round_)
        self._progress.update(self._sites, visible=False)
        self._progress.update(self._round_bar, completed=round_ - 1, visible=True)
        self._progress.reset(self._client_bar, total=clients, visible=True, note=f"round {round_}")

    def clients_done(self, rows: list[Row]) -> None:
        """Advance the bar of clients."""
        self._progress.update(self._client_bar, advance=len(rows))

    def round_ends(self, row: Row) -> None:
        """Loss, PSNR and time left."""
        note = f"{round_figures(row)}  {self._clock.left(row['round'])} left"
        self._progress.update(self._round_bar, completed=row["round"], note=note)


class PlainProgress(Observer):
    """One line per round, for logs."""

    def __init__(self, workload: Workload, console: Console) -> None:
        self._rounds = workload.training.rounds
        self._console = console
        self._clock = _Clock(self._rounds)

    def round_begins(self, round_: int, clients: int) -> None:
        """Start the clock."""
        self._clock.begin(round_)

    def round_ends(self, row: Row) -> None:
        """Print the round."""
        self._console.print(round_line(row, self._rounds, self._clock.left(row["round"])), highlight=False)


class _Clock:
    """Time left, from the rounds seen so far."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._first: tuple[int, float] | None = None

    def begin(self, round_: int) -> None:
        self._first = self._first or (round_ - 1, time.monotonic())

    def left(self, round_: int) -> str:
        done_before, since = self._first or (0, time.monotonic())
        seconds = (time.monotonic() - since) / max(1, round_ - done_before) * (self._rounds - round_)
        return duration(seconds)


@contextmanager
def progress_of(workload: Workload, console: Console) -> Iterator[Observer]:
    """A live display on a terminal, one line per round elsewhere."""
    if not console.is_interactive:
        yield PlainProgress(workload, console)
        return
    with Progress(*columns(), console=console) as progress:
        yield LiveProgress(workload, progress)


@contextmanager
def bars_of(console: Console, *names: str) -> Iterator[Callable[[str, str, int], None]]:
    """Bars on a terminal, nothing elsewhere; yields a function that reports a step: which bar, a note, the total."""
    with Progress(*columns(), console=console, disable=not console.is_interactive) as progress:
        bars = {name: progress.add_task(name, total=None, note="", visible=False) for name in names}
        yield lambda name, note, total: progress.update(bars[name], advance=1, note=note, total=total, visible=True)


def columns() -> tuple[ProgressColumn, ...]:
    """Of every progress bar; its tasks have a `note`."""
    return (
        TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip


def round_line(row: Row, rounds: int, left: str) -> str:
    """One round out of `rounds` as a line; `left` is the time left."""
    return f"{round_text(row, rounds)}  {left} left"
