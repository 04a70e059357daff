"""The ledger: rounds.parquet and clients.parquet, appended to and readable at any moment of a run."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fedsim.core.errors import DamagedError
from fedsim.core.files import replacing
from fedsim.engine.federation import Federation
from fedsim.engine.host.merging import Level, Levels
from fedsim.engine.host.messages import Row
from fedsim.engine.host.process import here
from fedsim.engine.record.appended import AppendedTable, read_arrow
from fedsim.workload.schema import Workload

_PATIENCE = 200  # times the duration of the last write, before the next one
_MOST_HELD = 1000  # rows as dictionaries, which take ten times the memory of a table
_AS_PANDAS = {pa.null(): pa.float64(), pa.string(): pa.large_string()}
TIMES = ("wait_seconds", "load_seconds", "train_seconds", "send_seconds")
"""Columns of a client's row that add up over the phases of a round."""

SUM_LEVELS = ("node", "group", "driver")
"""The levels at which partial sums are added, in the order of their way to the server."""
QUALITY = ("nmse", "psnr", "ssim")
UNKNOWN: Row = {**dict.fromkeys(QUALITY, math.nan), "evaluate_begin_seconds": math.nan, "evaluate_seconds": 0.0}
"""The quality of a client that was not validated."""


class Ledger:
    """What happened by round and by client."""

    def __init__(self, run: Path, before: Callable[[], None] = lambda: None) -> None:
        """Nothing is read or written yet.

        Args:
            run: Run directory.
            before: Writes what must be there before the ledger is written.
        """
        self._before = before
        self._tables = {name: AppendedTable(run / f"{name}.parquet") for name in ("rounds", "clients")}
        self._held: dict[str, list[Row]] = {name: [] for name in self._tables}  # rows that are in no table yet
        self._quality: list[Row] = []  # of each round, and its seconds
        self._written, self._cost = -math.inf, 0.0

    def resume(self, round_: int) -> None:
        """Continue what was written up to and including a round.

        Raises:
            DamagedError: a table cannot be read, or lacks a round.
        """
        for name, table in self._tables.items():
            self._held[name] = []
            if round_:
                table.keep(pc.field("round") <= round_)
                numbers = table.read(["round"])["round"]
                whole = sorted(numbers.unique().to_pylist()) == list(range(1, round_ + 1))
                if not whole or (name == "rounds" and len(numbers) > round_):
                    what = f"lacks some of rounds 1 to {round_}, or has some twice"
                    raise DamagedError(f"{table.path}: {what}; the run cannot be resumed with it")
            else:
                table.clear()
        self._quality = self._tables["rounds"].read(["round", "seconds", *QUALITY]).to_pylist() if round_ else []

    def quality(self, metric: str) -> list[tuple[int, float]]:
        """Every round's number and its mean validation quality; NaN where it was not validated."""
        return [(row["round"], math.nan if row[metric] is None else row[metric]) for row in self._quality]

    def seconds(self) -> list[float]:
        """How long every round took [s], its checkpoint aside."""
        return [row["seconds"] for row in self._quality]

    def clients(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of clients.parquet, as far as it has them."""
        frame: pd.DataFrame = self._tables["clients"].read(columns).to_pandas()
        return frame

    def append(self, round_row: Row, clients: Sequence[Row]) -> None:
        """Add a round; it is written unless that would take more than a few per cent of the time."""
        self._held["rounds"].append(round_row)
        self._held["clients"] += clients
        self._quality.append({key: round_row[key] for key in ("round", "seconds", *QUALITY)})
        if time.monotonic() - self._written > _PATIENCE * self._cost:
            self.flush()
        elif len(self._held["clients"]) > _MOST_HELD:
            self._put()

    def flush(self) -> None:
        """Write all rounds; a checkpoint needs its rounds there."""
        self._before()
        begun = time.monotonic()  # what a new site costs once does not make its rounds wait
        self._put()
        for table in self._tables.values():
            table.flush()
        self._written = time.monotonic()
        self._cost = self._written - begun

    def _put(self) -> None:
        """Put the rows that are held into their tables, all at once: a table of few takes as long as one of many."""
        for name, rows in self._held.items():
            if rows:
                self._tables[name].append(table_of(rows))
                self._held[name] = []

    def close(self) -> None:
        """Write all rounds, and make each table one file while it is small."""
        self.flush()
        for table in self._tables.values():
            table.merge()


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table with all their columns; NaN, and what a row lacks, is null, as in tables made with pandas."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return pa.table({key: _column([row.get(key) for row in rows]) for key in columns})


def _column(values: Sequence[object]) -> pa.Array:
    found = pa.array(values, from_pandas=True)
    return found.cast(_AS_PANDAS.get(found.type, found.type))


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, replacing what was there."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False, write_page_checksum=True)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table that fedsim wrote, or some of its columns.

    Raises:
        DamagedError: it is missing, or is not what was written.
    """
    frame: pd.DataFrame = read_arrow(path, columns).to_pandas()
    return frame


def stamped(rows: list[Row], workload: Workload, federation: Federation) -> pd.DataFrame:
    """Rows about volumes, with the columns needed to interpret a score."""
    if not rows:
        return pd.DataFrame()
    manifest = federation.manifest_of(row["site"] for row in rows)
    stamps = manifest.groupby(["site", "volume"])[["acceleration", "effective_acceleration", "within_subject"]].first()
    return (
        pd.DataFrame(rows)
        .join(stamps, on=["site", "volume"])
        .astype({"within_subject": bool})
        .assign(normalise=workload.federation.normalise, algorithm=workload.algorithm.name, seed=workload.seed)
    )


def row_key(evaluation: pd.DataFrame, most: int) -> str:
    """What a row of an evaluation's table is about: `client`, or `site` if clients are many or hold several sites."""
    clients, sites = evaluation["client"].nunique(), evaluation["site"].nunique()
    return "client" if sites <= clients <= most else "site"


def joined(before: Row | None, row: Row) -> Row:
    """One row for a client that worked in several phases: sums of times and bytes, the rest from the last phase."""
    if before is None:
        return row
    added = ("steps", *TIMES, "uplink_bytes", "downlink_bytes")
    return {**before, **row, "begin_seconds": before["begin_seconds"], **{key: before[key] + row[key] for key in added}}


def round_row(round_: int, seconds: float, clients: Sequence[Row], slots: int, threads: int) -> Row:
    """The row of a round: means over clients, sums of bytes.

    Args:
        round_: Its number.
        seconds: How long it took.
        clients: Its rows, one per client.
        slots: How many can train at once.
        threads: torch threads of each.
    """
    means = {key: _mean([row[key] for row in clients]) for key in ("loss", *QUALITY)}
    byte_sums = {key: int(sum(row[key] for row in clients)) for key in ("uplink_bytes", "downlink_bytes")}
    memory, outcomes = _memory(clients), Counter(row["outcome"] for row in clients)
    return {
        "round": round_, "seconds": seconds, "clients": len(clients) - outcomes["idle"], "failed": outcomes["dropped"],
        "slots": slots, "threads": threads, "memory_bytes": memory, "driver_memory_bytes": here()["memory_bytes"],
        **means, **byte_sums,
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    """The mean of those that are known; NaN if none is."""
    known = np.array(values)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else math.nan


def sum_columns(levels: Levels) -> Row:
    """The columns of a round's row that say what was added on the way to the server: bytes and seconds by level."""
    row: Row = {}
    for name in SUM_LEVELS:
        level = levels.get(name, Level())
        row |= {f"{name}_sum_bytes": level.bytes, f"{name}_sum_seconds": level.seconds}
    return row


def _memory(clients: Sequence[Row]) -> int:
    """Memory of this process and of all hosts after their clients [bytes], without what they share."""
    driver, largest = here(), dict[tuple[str, int], int]()
    for row in clients:
        if row["pid"] > 0:
            process = row["node"], row["pid"]
            largest[process] = max(row["memory_bytes"], largest.get(process, 0))
    largest.pop((driver["node"], driver["pid"]), None)
    return int(driver["memory_bytes"] + sum(largest.values()))
