"""A study's folder as it fills: which points are done, which have failed, and how far the others are."""

from pathlib import Path

from rich.console import RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from fedsim.cli.watch_run import WatchedRun
from fedsim.study.ended import is_finished, read_failures
from fedsim.study.frozen import open_study
from fedsim.study.search import ended_trials
from fedsim.study.study import Point

_MOST_ROWS, _WIDTH = 12, 40


class WatchedStudy:
    """A study's folder: which points are done, which have failed, and how far the others are."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InputError: its study.yaml is wrong.
        """
        plan = open_study(path)
        self._path, self._name = path, plan.study.name
        trials = [
            plan.trial(pair, plan.example(pair[1])._replace(number=number))
            for pair in plan.searched
            for number in range(plan.tune.runs(pair[1]))
        ]
        points = (*plan.tuning(), *trials, *plan.examples())  # folder names do not depend on the tuning
        self._plan = plan
        self._open: dict[str, Point] = {point.label: point for point in points}
        self._total, self._finished = len(self._open), 0
        self._failed: dict[str, str] = {}
        self._begun: dict[str, WatchedRun] = {}
        self._told = ""

    @property
    def done(self) -> bool:
        """Whether every point has finished or failed; running the study again retries those that failed."""
        return self._open.keys() <= self._failed.keys()

    def look(self) -> None:
        """Update the points that were not finished at the last look.

        Raises:
            DamagedError: a file cannot be read.
        """
        self._failed = {label: error for label, error in read_failures(self._path).items() if label in self._open}
        ended = ended_trials(self._plan, self._path)
        for label, point in list(self._open.items()):
            path = self._path / point.folder
            if label in self._failed or not (path / "workload.yaml").is_file():
                continue
            if label in ended or is_finished(point, self._path):
                del self._open[label]
                self._begun.pop(label, None)
                self._finished += 1
            else:
                self._begun[label] = self._begun.get(label) or WatchedRun(path)
                self._begun[label].look()

    @property
    def _running(self) -> dict[str, WatchedRun]:
        return {label: run for label, run in self._begun.items() if label not in self._failed}

    def news(self) -> list[str]:
        """The counts, if they have changed."""
        counts = self._counts()
        new = counts != self._told
        self._told = counts
        return [f"{counts}{'  done' if self.done else ''}"] if new else []

    def _counts(self) -> str:
        running, failed = len(self._running), len(self._failed)
        waiting = self._total - self._finished - running - failed
        return (
            f"points {self._finished}/{self._total} finished, {running} running, {failed} failed, {waiting} not started"
        )

    def view(self) -> RenderableType:
        """The counts, and the progress of each point that is running."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(escape(self._name), self._counts())
        table.add_row("", ProgressBar(total=self._total, completed=self._finished, width=_WIDTH))
        for label, run in list(self._running.items())[:_MOST_ROWS]:
            table.add_row("running", f"{escape(label)}  round {run.reached} of {run.total}")
        for label, error in list(self._failed.items())[:_MOST_ROWS]:
            table.add_row("failed", f"{escape(label)}: {escape(error)}", style="red")
        return table
