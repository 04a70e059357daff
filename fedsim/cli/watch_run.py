"""A run directory as it grows: what is new since the last look, and the run's present state."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from fedsim.analysis.cohorts import COLUMNS, MOST_LINES, QUANTITIES, Cohorts
from fedsim.cli.progress import round_line
from fedsim.core.errors import DamagedError, InputError, RunError
from fedsim.core.text import bytes_text, duration, precise_duration
from fedsim.engine.record.ending import stopped_early
from fedsim.engine.record.growing import GrowingTable
from fedsim.engine.record.ledger import read_table
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.workload.names import POOLED

_RECENT = 10  # rounds from which the time left is estimated
_SPARKS = "▁▂▃▄▅▆▇█"
_MOST_SPARKS = 40
_MOST_NAMED = 3
_FAILURE_COLUMNS = ["round", "phase", "client", "kind", "action", "message"]
_NUMBERS = ["round", "seconds", "uplink_bytes", "downlink_bytes"]

Facts = list[tuple[str, str]]
"""Names and texts, in the order in which they are shown."""


class WatchedRun:
    """A run directory. One of a stopped or killed run grows no more, which its folder does not say."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InputError: the folder is not a run.
        """
        self.run = Run(path)
        self.rounds = pd.DataFrame()
        """Rows of rounds.parquet so far."""
        self.failures = pd.DataFrame(columns=_FAILURE_COLUMNS)
        """Rows of failures.parquet so far, without tracebacks."""
        self.best: int | None = None
        """The best round so far that has a checkpoint, if any."""
        self.unreadable: Mapping[str, Exception] = {}
        """The files that could not be read at the last two looks, with the reason."""
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._table = GrowingTable(path / "clients.parquet", COLUMNS)
        self.cohorts = self._new_cohorts()
        """What clients have done so far."""
        self._complete: list[int] = []
        self._told = self._done_told = 0
        self._missed: Mapping[str, Exception] = {}

    @property
    def done(self) -> bool:
        """Whether the last round has its checkpoint; only evaluation and report follow."""
        if self.total in self._complete:
            return True
        saved = self.rounds["round"] <= self._complete[-1] if self._complete and len(self.rounds) else None
        return saved is not None and bool(stopped_early(self.run.workload, self.rounds[saved]))

    @property
    def early(self) -> str:
        """Why it stopped before its last round, in words; empty if it did not."""
        return stopped_early(self.run.workload, self.rounds)

    @property
    def total(self) -> int:
        """Rounds."""
        return self.run.workload.training.rounds

    @property
    def reached(self) -> int:
        """The last round in the ledger."""
        return int(self.rounds["round"].max()) if len(self.rounds) else 0

    @property
    def written(self) -> float:
        """When the ledger was last written [s since 1970]; before the first round, when the run began."""
        stamp = self._stamps.get("rounds.parquet") or self._stamps.get("workload.yaml")
        return stamp[0] / 1e9 if stamp else math.nan

    @property
    def round_seconds(self) -> float:
        """How long a round takes lately [s]; NaN before the first."""
        return float(self.rounds["seconds"].tail(_RECENT).mean()) if len(self.rounds) else math.nan

    def look(self) -> None:
        """Read the files that have changed since the last look; one that cannot be read stops none of the others.

        Raises:
            InputError: workload.yaml cannot be read.
            RunError: a file cannot be read twice in a row (on a network disk, one may vanish while it is read).
        """
        missed = self._read()
        self.unreadable = {name: error for name, error in missed.items() if name in self._missed}
        self._missed = missed
        for error in self.unreadable.values():
            raise error

    def _read(self) -> Mapping[str, Exception]:
        """Read what has changed; returns what could not be read. Of a folder that is gone, what is known stays."""
        if not (self.run.path / "workload.yaml").exists():
            return {"workload.yaml": InputError(f"{self.run.path}: is no run any longer; it was moved or deleted")}
        complete = complete_rounds(self.run.path)  # before the ledger, which is written first
        readers: dict[str, Callable[[], None]] = {
            "workload.yaml": self._read_workload,
            "rounds.parquet": self._read_rounds,
            "clients.parquet": self._read_clients,
            "failures.parquet": self._read_failures,
            "checkpoints": lambda: self._read_checkpoints(complete),
        }
        missed: dict[str, Exception] = {}
        for name, read in readers.items():
            try:
                read()
            except (InputError, RunError) as error:
                missed[name] = error
                self._stamps.pop(name, None)
        return missed

    def _read_workload(self) -> None:
        if self._is_new("workload.yaml"):  # a resumed run may have more rounds; another run may have taken its place
            self.run = Run(self.run.path)
            self._stamps = {"workload.yaml": self._stamps["workload.yaml"]}
            self._table.forget()
            self.rounds, self.failures, self.cohorts = pd.DataFrame(), self.failures[:0], self._new_cohorts()

    def _read_rounds(self) -> None:
        if self._is_new("rounds.parquet"):
            self.rounds = _checked(self.run.rounds, self.run.path / "rounds.parquet")

    def _read_failures(self) -> None:
        if self._is_new("failures.parquet"):
            self.failures = read_table(self.run.path / "failures.parquet", _FAILURE_COLUMNS)

    def _read_clients(self) -> None:
        try:
            self._take_up()
            if not self.cohorts.sure:
                self._table.forget()
                self.cohorts = self._new_cohorts()
                self._take_up()
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            self._table.forget()
            reason = " ".join(str(error).split())[:120]
            raise DamagedError(f"{self.run.path / 'clients.parquet'}: is another table ({reason})") from error

    def _take_up(self) -> None:
        for change in self._table.changes():
            self.cohorts.take_up(change)

    def _read_checkpoints(self, complete: list[int]) -> None:
        if complete != self._complete:
            self.best = self.run.round("best") if complete else None
            self._complete = complete

    def _new_cohorts(self) -> Cohorts:
        workload = self.run.workload
        sites = workload.federation.expanded_sites()
        some = [sites.name(place) for place in range(min(len(sites), MOST_LINES + 1))]
        return Cohorts(workload.client_names(), [POOLED] if workload.algorithm.pools_data else some)

    def _is_new(self, name: str) -> bool:
        stamp = stamp_of(self.run.path / name)
        if stamp is None:
            return False
        before, self._stamps[name] = self._stamps.get(name), stamp
        return stamp != before

    def news(self) -> list[str]:
        """A line for each new round, including rounds repeated after a loss; and one at the end."""
        self._told = min(self._told, self.reached)
        lines = [
            round_line(row, self.total, duration(self.left(row["round"])))
            for row in ({str(key): value for key, value in row.items()} for row in self.rounds.to_dict("records"))
            if row["round"] > self._told
        ]
        self._told = self.reached
        if self.done and self._done_told != self.total:
            lines.append(self.early or f"done: {self.total} rounds{self._best_text(', best ')}")
            self._done_told = self.total
        return lines

    def left(self, round_: int) -> float:
        """Seconds that the rounds after one will take if they are like the last ones before it."""
        seconds = self.rounds.loc[self.rounds["round"] <= round_, "seconds"].tail(_RECENT)
        return float(seconds.mean()) * (self.total - round_)

    def _best_text(self, before: str) -> str:
        known = self.rounds[self.rounds["round"] == self.best] if len(self.rounds) else self.rounds
        if not len(known) or known["psnr"].isna().all():
            return ""
        return f"{before}round {self.best} with PSNR {known['psnr'].iloc[0]:.2f} dB"

    def view(self) -> RenderableType:
        """The run's present state as a small table."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(escape(self.run.workload.name), f"round {self.reached} of {self.total}")
        table.add_row("", ProgressBar(total=self.total, completed=self.reached, width=_MOST_SPARKS))
        if not len(self.rounds):
            table.add_row("", "the first round is not in the ledger yet")
        for name, text in self.facts():
            table.add_row(name, f"{escape(text)}{self._sparks() if name == 'validation' else ''}")
        if len(self.rounds):
            table.add_row("left", self._left_text())
        if len(self.failures):
            table.add_row("failures", escape(_failures_text(self.failures)), style="red")
        return table

    def facts(self) -> Facts:
        """What is known of the rounds so far; nothing before the first."""
        if not len(self.rounds):
            return []
        last, quality = self.rounds.iloc[-1], self.rounds["psnr"].dropna()
        up, down = (self.rounds[f"{way}_bytes"] for way in ("uplink", "downlink"))
        sent = f"{bytes_text(up.iloc[-1])} up, {bytes_text(down.iloc[-1])} down per round"
        found = {
            "loss": f"{last['loss']:.4g}",
            "validation": f"PSNR {quality.iloc[-1]:.2f} dB" if len(quality) else "",
            "best": self._best_text(""),
            "a round": duration(self.round_seconds),
            "simulated": simulated_text(self.rounds["virtual_s"]) if "virtual_s" in self.rounds else "",
            "bytes": f"{sent}; {bytes_text(up.sum() + down.sum())} so far",
            "slowest": slowest_text(self.cohorts.last),
        }
        return [(name, text) for name, text in found.items() if text]

    def _sparks(self) -> str:
        return f"  {spark_line(self.rounds['psnr'].dropna().tolist())}"

    def _left_text(self) -> str:
        if self.done:
            return self.early or "nothing: done"
        since = duration(max(0.0, time.time() - self.written))
        return f"{duration(self.left(self.reached))}; last update {since} ago"


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written again; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _checked(rounds: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rounds of a table.

    Raises:
        DamagedError: it is another table.
    """
    numbers = rounds.reindex(columns=_NUMBERS).apply(pd.to_numeric, errors="coerce")
    if not np.isfinite(numbers).all(axis=None) or not {*QUANTITIES} <= {*rounds}:
        columns = ", ".join([*_NUMBERS, *QUANTITIES])
        raise DamagedError(f"{path}: is another table, or lacks a number in one of the columns {columns}")
    return rounds


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
