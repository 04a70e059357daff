"""A trace: a table of the windows in which clients are available, time.available.trace."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from fedsim.core.errors import InputError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.windows import ALWAYS, Traced
from fedsim.workload.time import Available

_COLUMNS = ("client", "from_s", "to_s")
_AS_WRITTEN: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_values": [""]}  # a hospital may be called NA


def read_trace(available: Available, clients: Clients) -> dict[int, Traced]:
    """The windows of the clients that a trace names, by their place; empty without a trace.

    Raises:
        InputError: there is no such file, it is not such a table, or its windows are not those of these clients in
            ascending order.
    """
    path = available.trace
    if path is None:
        return {}
    where = f"time.available.trace: {path}"
    period = 3600 * available.period_h if available.period_h else math.inf
    table = _table(path, where)
    _check_times(table, period, where)
    windows = {}
    for name, rows in table.groupby("client", sort=False):
        try:
            place = clients.place(str(name))
        except KeyError:
            line = f"{where}, row {rows.index[0] + 1}"
            raise InputError(f"{line}: {name!r:.80} is not a client; {_some(clients)}") from None
        windows[place] = _windows(rows, period, where)
    return windows


def _table(path: Path, where: str) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{where}: no such file")
    try:
        table = pd.read_csv(path, **_AS_WRITTEN) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{where}: is not a table ({' '.join(str(error).split())[:80]})") from error
    if path.suffix.lower() == ".csv" and not isinstance(table.index, pd.RangeIndex):  # pandas took fields for names
        raise InputError(f"{where}: its rows have more fields than its first line has names")
    twice = [name for name in _COLUMNS if f"{name}.1" in table]
    if twice:
        raise InputError(f"{where}: has two columns {twice[0]}")
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        commas = ", separated by commas" if path.suffix.lower() == ".csv" else ""
        raise InputError(f"{where}: has no column {missing[0]}; it needs client, from_s and to_s{commas}")
    if table.empty:
        raise InputError(f"{where}: has no rows; list the windows of each client, or leave it out")
    return table.reset_index(drop=True)


def _check_times(table: pd.DataFrame, period: float, where: str) -> None:
    """Turn names into text and times into numbers; refuse times that cannot be a window's, naming the first row."""
    table["client"] = table["client"].astype(object).map(str, na_action="ignore")
    for name in ("from_s", "to_s"):
        table[name] = pd.to_numeric(table[name].astype(str), errors="coerce").astype(np.float64)  # no dates, no truths
    begin, end = table["from_s"], table["to_s"]
    for wrong, what in (
        (table["client"].isna(), "has no client"),
        (~np.isfinite(begin + end), "from_s and to_s must be numbers of seconds"),
        (begin < 0, "from_s must be 0 or more"),
        (end <= begin, "to_s must be after from_s"),
        (end > period, f"to_s must be within the period of {period / 3600:g} h; set time.available.period_h"),
    ):
        if wrong.any():
            raise InputError(f"{where}, row {int(np.argmax(wrong)) + 1}: {what}")


def _windows(rows: pd.DataFrame, period: float, where: str) -> Traced:
    """A client's windows, those that touch joined, also where a period ends and the next begins."""
    begins, ends, lines = rows["from_s"].tolist(), rows["to_s"].tolist(), rows.index.tolist()
    for (_, before), (at, now) in pairwise(enumerate(begins)):
        line = f"{where}, row {lines[at] + 1}"
        if now < before:
            raise InputError(f"{line}: begins before the client's window above it; sort its windows by from_s")
        if now < ends[at - 1]:
            raise InputError(f"{line}: begins before the client's window above it ends; join them")
    apart = [True, *(now > before for now, before in zip(begins[1:], ends, strict=False))]
    firsts = [begin for begin, first in zip(begins, apart, strict=True) if first]
    lasts = [end for end, next_apart in zip(ends, [*apart[1:], True], strict=True) if next_apart]
    if firsts[0] > 0 or lasts[-1] < period:
        return Traced(firsts, lasts, period)
    return Traced([firsts[-1] - period, *firsts[1:-1]], lasts[:-1], period) if len(firsts) > 1 else ALWAYS


def _some(clients: Clients) -> str:
    """Who is: the first of them, and how many more there are."""
    names, more = clients.names[:20], len(clients) - 20
    if len(clients) == 1:
        return f"the only one is {names[0]}"
    return ", ".join(names) + (f" and {more:,} more are" if more > 0 else " are")
