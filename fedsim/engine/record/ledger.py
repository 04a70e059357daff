"""The ledger: rounds.parquet and clients.parquet, appended to and readable at any moment of a run."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
TIMES = ("wait_seconds", "load_seconds", "train_seconds", "send_seconds")
"""Columns of a client's row that add up over the phases of a round."""

SUM_LEVELS = ("node", "group", "driver")
"""The levels at which partial sums are added, in the order of their way to the server."""
QUALITY = ("nmse", "psnr", "ssim")
UNKNOWN: Row = {**dict.fromkeys(QUALITY, math.nan), "evaluate_begin_seconds": math.nan, "evaluate_seconds": 0.0}
"""The quality of a client that was not validated."""


class Ledger:
    """What happened by round and by client."""

    def __init__(self, run: Path) -> None:
        self._tables = {name: AppendedTable(run / f"{name}.parquet") for name in ("rounds", "clients")}
        self._quality: list[Row] = []  # of each round
        self._written, self._cost = -math.inf, 0.0

    def resume(self, round_: int) -> None:
        """Continue what was written up to and including a round.

        Raises:
            DamagedError: a table cannot be read, or lacks a round.
        """
        for table in self._tables.values():
            if round_:
                table.keep(pc.field("round") <= round_)
                if pc.count_distinct(table.read(["round"])["round"]).as_py() != round_:
                    raise DamagedError(
                        f"{table.path}: lacks some of rounds 1 to {round_}; the run cannot be resumed without them"
                    )
            else:
                table.clear()
        self._quality = self._tables["rounds"].read(["round", *QUALITY]).to_pylist() if round_ else []

    def quality(self, metric: str) -> list[tuple[int, float]]:
        """Every round's number and its mean validation quality; NaN where it was not validated."""
        return [(row["round"], math.nan if row[metric] is None else row[metric]) for row in self._quality]

    def clients(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of clients.parquet, as far as it has them."""
        frame: pd.DataFrame = self._tables["clients"].read(columns).to_pandas()
        return frame

    def append(self, round_row: Mapping[str, Any], clients: pd.DataFrame) -> None:
        """Add a round; it is written unless that would take more than a few per cent of the time."""
        for name, frame in {"rounds": pd.DataFrame([round_row]), "clients": clients}.items():
            self._tables[name].append(pa.Table.from_pandas(frame, preserve_index=False))
        self._quality.append({key: round_row[key] for key in ("round", *QUALITY)})
        if time.monotonic() - self._written > _PATIENCE * self._cost:
            self.flush()

    def flush(self) -> None:
        """Write all rounds; a checkpoint needs its rounds there."""
        begun = time.monotonic()
        for table in self._tables.values():
            table.flush()
        self._written = time.monotonic()
        self._cost = self._written - begun

    def close(self) -> None:
        """Write all rounds, and make each table one file while it is small."""
        self.flush()
        for table in self._tables.values():
            table.merge()


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


def round_row(round_: int, seconds: float, clients: pd.DataFrame, slots: int, threads: int) -> Row:
    """The row of a round: means over clients, sums of bytes.

    Args:
        round_: Its number.
        seconds: How long it took.
        clients: Its rows, one per client.
        slots: How many can train at once.
        threads: torch threads of each.
    """
    known = {key: clients[key].dropna() for key in ("loss", *QUALITY)}
    means = {key: float(values.mean()) if len(values) else math.nan for key, values in known.items()}
    byte_sums = {key: int(clients[key].sum()) for key in ("uplink_bytes", "downlink_bytes")}
    memory = _memory(clients)
    drawn, failed = int((clients["outcome"] != "idle").sum()), int((clients["outcome"] == "dropped").sum())
    return {
        "round": round_, "seconds": seconds, "clients": drawn, "failed": failed, "slots": slots, "threads": threads,
        "memory_bytes": memory, "driver_memory_bytes": here()["memory_bytes"], **means, **byte_sums,
    }  # fmt: skip


def sum_columns(levels: Levels) -> Row:
    """The columns of a round's row that say what was added on the way to the server: bytes and seconds by level."""
    row: Row = {}
    for name in SUM_LEVELS:
        level = levels.get(name, Level())
        row |= {f"{name}_sum_bytes": level.bytes, f"{name}_sum_seconds": level.seconds}
    return row


def _memory(clients: pd.DataFrame) -> int:
    """Memory of this process and of all hosts after their clients [bytes], without what they share."""
    driver, largest = here(), dict[tuple[str, int], int]()
    for node, pid, size in zip(clients["node"], clients["pid"], clients["memory_bytes"], strict=True):
        if pid > 0:
            largest[node, pid] = max(size, largest.get((node, pid), 0))
    largest.pop((driver["node"], driver["pid"]), None)
    return int(driver["memory_bytes"] + sum(largest.values()))
