"""A run directory as it grows: what is new since the last look, and the run's present state."""

import time
from pathlib import Path

import pandas as pd
from rich.console import RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from fedsim.cli.progress import round_line
from fedsim.core.errors import DamagedError
from fedsim.core.text import bytes_text, duration, precise_duration
from fedsim.engine.record.ending import stopped_early
from fedsim.engine.record.ledger import read_table
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds

_RECENT = 10  # rounds from which the time left is estimated
_SPARKS = "▁▂▃▄▅▆▇█"
_MOST_SPARKS = 40
_MOST_NAMED = 3


class WatchedRun:
    """A run directory. One of a stopped or killed run grows no more, which its folder does not say."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InputError: the folder is not a run.
        """
        self._run = Run(path)
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._rounds, self._failures, self._last_clients = pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
        self._complete: list[int] = []
        self._best: int | None = None
        self._told = self._done_told = 0
        self._missed = False

    @property
    def done(self) -> bool:
        """Whether the last round has its checkpoint; only evaluation and report follow."""
        if self.total in self._complete:
            return True
        saved = self._rounds["round"] <= self._complete[-1] if self._complete and len(self._rounds) else None
        return saved is not None and bool(stopped_early(self._run.workload, self._rounds[saved]))

    @property
    def total(self) -> int:
        """Rounds."""
        return self._run.workload.training.rounds

    @property
    def reached(self) -> int:
        """The last round in the ledger."""
        return int(self._rounds["round"].max()) if len(self._rounds) else 0

    def look(self) -> None:
        """Read the files that have changed since the last look.

        Raises:
            DamagedError: a file cannot be read twice in a row (on a network disk, one may vanish while it is read).
        """
        try:
            self._read()
            self._missed = False
        except DamagedError:
            if self._missed:
                raise
            self._missed = True
            self._stamps.clear()

    def _read(self) -> None:
        path = self._run.path
        if self._is_new("workload.yaml"):  # a resumed run may have more rounds
            self._run = Run(path)
        complete = complete_rounds(path)  # before the ledger, which is written first
        if self._is_new("rounds.parquet"):
            self._rounds = self._run.rounds
        if self._is_new("clients.parquet"):
            self._last_clients = _last_round(path / "clients.parquet")
        if self._is_new("failures.parquet"):
            self._failures = read_table(path / "failures.parquet")
        if complete != self._complete:
            self._best = self._run.round("best") if complete else None
            self._complete = complete

    def _is_new(self, name: str) -> bool:
        try:
            status = (self._run.path / name).stat()
        except FileNotFoundError:
            return False
        stamp = status.st_mtime_ns, status.st_ino, status.st_size
        before, self._stamps[name] = self._stamps.get(name), stamp
        return stamp != before

    def news(self) -> list[str]:
        """A line for each new round, including rounds repeated after a loss; and one at the end."""
        self._told = min(self._told, self.reached)
        lines = [
            round_line(row, self.total, duration(self._left(row["round"])))
            for row in ({str(key): value for key, value in row.items()} for row in self._rounds.to_dict("records"))
            if row["round"] > self._told
        ]
        self._told = self.reached
        if self.done and self._done_told != self.total:
            early = stopped_early(self._run.workload, self._rounds)
            lines.append(early or f"done: {self.total} rounds{self._best_text(', best ')}")
            self._done_told = self.total
        return lines

    def _left(self, round_: int) -> float:
        """Seconds that the remaining rounds will take if they are like the last ones."""
        seconds = self._rounds.loc[self._rounds["round"] <= round_, "seconds"].tail(_RECENT)
        return float(seconds.mean()) * (self.total - round_)

    def _best_text(self, before: str) -> str:
        known = self._rounds[self._rounds["round"] == self._best] if len(self._rounds) else self._rounds
        if not len(known) or known["psnr"].isna().all():
            return ""
        return f"{before}round {self._best} with PSNR {known['psnr'].iloc[0]:.2f} dB"

    def view(self) -> RenderableType:
        """The run's present state as a small table."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(escape(self._run.workload.name), f"round {self.reached} of {self.total}")
        table.add_row("", ProgressBar(total=self.total, completed=self.reached, width=_MOST_SPARKS))
        if not len(self._rounds):
            table.add_row("", "the first round is not in the ledger yet")
        else:
            self._add_figures(table)
        if len(self._failures):
            table.add_row("failures", escape(_failures_text(self._failures)), style="red")
        return table

    def _add_figures(self, table: Table) -> None:
        last = self._rounds.iloc[-1]
        table.add_row("loss", f"{last['loss']:.4g}")
        quality = self._rounds["psnr"].dropna()
        if len(quality):
            table.add_row("validation", f"PSNR {quality.iloc[-1]:.2f} dB  {spark_line(quality.tolist())}")
        if best := self._best_text(""):
            table.add_row("best", best)
        table.add_row("a round", duration(self._rounds["seconds"].tail(_RECENT).mean()))
        if "virtual_s" in self._rounds:
            table.add_row("simulated", simulated_text(self._rounds["virtual_s"]))
        since = duration(max(0.0, time.time() - self._stamps["rounds.parquet"][0] / 1e9))
        done = stopped_early(self._run.workload, self._rounds) or "nothing: done"
        ahead = done if self.done else f"{duration(self._left(self.reached))}; last update {since} ago"
        table.add_row("left", ahead)
        up, down = (self._rounds[f"{way}_bytes"] for way in ("uplink", "downlink"))
        sent = f"{bytes_text(up.iloc[-1])} up, {bytes_text(down.iloc[-1])} down per round"
        table.add_row("bytes", f"{sent}; {bytes_text(up.sum() + down.sum())} so far")
        if slowest := slowest_text(self._last_clients):
            table.add_row("slowest", escape(slowest))


def _last_round(path: Path) -> pd.DataFrame:
    """The clients of the last round in clients.parquet and how long each trained.

    Raises:
        DamagedError: it cannot be read.
    """
    table = read_table(path, ["round", "client", "outcome", "train_seconds"])
    last: pd.DataFrame = table[table["round"] == table["round"].max()]
    return last


def slowest_text(clients: pd.DataFrame) -> str:
    """The clients that trained longest in a round."""
    trained = clients[clients["train_seconds"] > 0] if len(clients) else clients
    longest = trained.nlargest(_MOST_NAMED, "train_seconds") if len(trained) else trained
    return ", ".join(f"{row.client} {row.train_seconds:.2g} s" for row in longest.itertuples())


def simulated_text(ends: "pd.Series[float]") -> str:
    """Simulated time so far, and of a round lately; from the times at which rounds ended [s]."""
    took = ends.diff().fillna(ends).tail(_RECENT).mean()
    return f"{precise_duration(ends.iloc[-1])} so far, {precise_duration(took)} per round"


def _failures_text(failures: pd.DataFrame) -> str:
    counts = ", ".join(f"{count} {action}" for action, count in failures["action"].value_counts().items())
    last = failures.iloc[-1]
    return f"{counts}; last: {last['client'] or 'a process'} in round {last['round']}, {last['kind']}"


def spark_line(values: list[float]) -> str:
    """The last values as a line of bars, scaled to their range."""
    shown = values[-_MOST_SPARKS:]
    low, span = min(shown), max(shown) - min(shown)
    return "".join(_SPARKS[round((value - low) / span * (len(_SPARKS) - 1)) if span else 0] for value in shown)
