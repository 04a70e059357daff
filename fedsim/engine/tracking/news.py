"""What the ledger says that a tracker has not been told yet."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedsim.core.errors import DamagedError
from fedsim.engine.record.appended import read_arrow

MOST_CLIENTS = 50
"""Clients with scalars of their own: the first that the ledger names."""
CLIENT_COLUMNS = (
    "loss", "nmse", "psnr", "ssim", "weight", "samples", "train_seconds", "wait_seconds", "uplink_bytes",
    "downlink_bytes",
)  # fmt: skip
"""Columns of clients.parquet that trackers are told, as far as a run has them."""

Scalars = dict[str, float]


class News:
    """The rounds of a run directory, each once, as far as both of its tables have them."""

    def __init__(self, run: Path, last: int) -> None:
        """Begin after a round."""
        self._rounds, self._clients = run / "rounds.parquet", run / "clients.parquet"
        self._last = last
        self._named: dict[str, None] = {}
        if last:
            self._name(read_arrow(self._clients, ["client"], pc.field("round") <= last)["client"].to_pylist())

    def read(self) -> Iterator[tuple[int, Scalars]]:
        """The rounds that are new, with their scalars; none if nothing is written yet."""
        new = pc.field("round") > self._last
        try:
            rounds, clients = (read_arrow(path, rows=new) for path in (self._rounds, self._clients))
        except DamagedError:  # the tables appear with the first round
            return
        by_round: dict[int, list[dict[str, Any]]] = {}
        for row in _rows(clients, ("client", *CLIENT_COLUMNS)):
            by_round.setdefault(row["round"], []).append(row)
        for row in _rows(rounds, rounds.column_names):
            if row["round"] not in by_round:
                return
            self._last = row["round"]
            yield self._last, self._scalars(row, by_round[self._last])

    def _scalars(self, row: dict[str, Any], clients: list[dict[str, Any]]) -> Scalars:
        self._name(client["client"] for client in clients)
        found = {f"rounds/{key}": value for key, value in row.items() if key != "round"}
        for client in clients:
            if client["client"] in self._named:
                found |= {f"clients/{key}/{client['client']}": client.get(key) for key in CLIENT_COLUMNS}
        return {key: float(value) for key, value in found.items() if _is_number(value)}

    def _name(self, clients: Iterator[str] | list[str]) -> None:
        for client in clients:
            if len(self._named) >= MOST_CLIENTS:
                return
            self._named[client] = None


def _rows(table: pa.Table, columns: tuple[str, ...] | list[str]) -> list[dict[str, Any]]:
    known = [name for name in ("round", *columns) if name in table.column_names]
    rows: list[dict[str, Any]] = table.select(list(dict.fromkeys(known))).sort_by("round").to_pylist()
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
