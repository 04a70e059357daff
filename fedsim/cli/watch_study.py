"""A study's folder as it fills: which points are done, which have failed, and how far the others are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from fedsim.cli.watch_run import WatchedRun, stamp_of
from fedsim.core.errors import InputError, RunError
from fedsim.engine.record.run_folder import is_run
from fedsim.study.ended import is_finished, read_failures
from fedsim.study.frozen import open_study
from fedsim.study.search import ended_trials
from fedsim.study.study import Point

_MOST_ROWS, _WIDTH = 12, 40

PointState = Literal["finished", "running", "failed", "not started"]
"""How a point stands; one that was stopped counts as running, since its folder does not say."""


class WatchedStudy:
    """A study's folder: which points are done, which have failed, and how far the others are."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InputError: its study.yaml is wrong.
        """
        self._path, self._stamp = path, stamp_of(path / "study.yaml")
        self._plan = plan = open_study(path)
        trials = [
            plan.trial(case, plan.example(case.method)._replace(number=number))
            for case in plan.searched
            for number in range(plan.tune.runs(case.method))
        ]
        points = (*plan.tuning(), *trials, *plan.examples())  # folder names do not depend on the tuning
        self._open: dict[str, Point] = {point.label: point for point in points}
        self.folders = {label: path / point.folder for label, point in self._open.items()}
        """The run directory of every point, which may not exist yet."""
        self.failed: dict[str, str] = {}
        """The error of each failed point."""
        self.unreadable: Mapping[str, Exception] = {}
        """The points of which something could not be read, with the reason."""
        self._begun: dict[str, WatchedRun] = {}
        self._told = ""

    @property
    def name(self) -> str:
        """The study's."""
        return self._plan.study.name

    @property
    def about(self) -> str:
        """Its kind and size, in words."""
        return f"{self._plan.study.kind}: {self._plan.describe()}"

    @property
    def done(self) -> bool:
        """Whether every point has finished or failed; running the study again retries those that failed."""
        return self._open.keys() <= self.failed.keys()

    def look(self) -> None:
        """Update the points that were not finished at the last look; one that cannot be read stops none of the others.

        Raises:
            InputError: a file cannot be read.
            RunError: the system refuses to read one.
        """
        if stamp_of(self._path / "study.yaml") != self._stamp:  # resumed, perhaps with more seeds or methods
            new = WatchedStudy(self._path)
            self._stamp, self._plan, self._open, self.folders = new._stamp, new._plan, new._open, new.folders
        self.failed = {label: error for label, error in read_failures(self._path).items() if label in self._open}
        ended = ended_trials(self._plan, self._path)
        unreadable: dict[str, Exception] = {}
        for label, point in list(self._open.items()):
            if label in self.failed or not is_run(self.folders[label]):
                continue
            try:
                self._look_at(label, ended=label in ended or is_finished(point, self._path))
            except (InputError, RunError) as error:
                unreadable[label] = error
        self.unreadable = unreadable
        for first in unreadable.values():
            raise first

    def _look_at(self, label: str, *, ended: bool) -> None:
        if ended:
            del self._open[label]
            self._begun.pop(label, None)
        else:
            self._begun[label] = self._begun.get(label) or WatchedRun(self.folders[label])
            self._begun[label].look()

    @property
    def running(self) -> dict[str, WatchedRun]:
        """The points that have begun and not ended."""
        return {label: run for label, run in self._begun.items() if label in self._open and label not in self.failed}

    @property
    def states(self) -> dict[str, PointState]:
        """How every point stands."""
        begun = self.running
        return {
            label: "finished" if label not in self._open else "failed" if label in self.failed
            else "running" if label in begun else "not started"
            for label in self.folders
        }  # fmt: skip

    def news(self) -> list[str]:
        """The counts, if they have changed."""
        counts = self.counts()
        new = counts != self._told
        self._told = counts
        return [f"{counts}{'  done' if self.done else ''}"] if new else []

    @property
    def finished(self) -> int:
        """Number of points."""
        return len(self.folders) - len(self._open)

    def counts(self) -> str:
        """How many points there are of each state."""
        total, running, failed = len(self.folders), len(self.running), len(self.failed)
        waiting = total - self.finished - running - failed
        return f"points {self.finished}/{total} finished, {running} running, {failed} failed, {waiting} not started"

    def view(self) -> RenderableType:
        """The counts, and the progress of each point that is running."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(escape(self.name), self.counts())
        table.add_row("", ProgressBar(total=len(self.folders), completed=self.finished, width=_WIDTH))
        for label, run in list(self.running.items())[:_MOST_ROWS]:
            table.add_row("running", f"{escape(label)}  round {run.reached} of {run.total}")
        for label, error in list(self.failed.items())[:_MOST_ROWS]:
            table.add_row("failed", f"{escape(label)}: {escape(error)}", style="red")
        return table
