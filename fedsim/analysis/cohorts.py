"""What a run's clients have done so far, kept small: each one's last turn, and the quality of every site by round."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedsim.engine.record.growing import Change

QUANTITIES = ("psnr", "ssim", "nmse", "loss")
"""What is followed by round: validation quality, and the training loss."""
COLUMNS = ("round", "client", "site", "outcome", "train_seconds", *QUANTITIES)
"""What is read of clients.parquet."""
TURNS = ("trained", "dropped", "late", "unavailable")
"""How a turn can end; clients that were only validated had none."""
MOST_LINES = 12
"""Sites beyond this number are summarised."""
RANGE = ("90th percentile of sites", "median site", "10th percentile of sites")
"""The lines of many sites."""
MOST_PLACED = 20_000
"""Clients beyond this number are followed only while they are in the newest round."""

_PERCENTILES = (90, 50, 10)


class Cohorts:
    """The clients of all rounds so far."""

    def __init__(self, clients: Sequence[str], sites: Sequence[str]) -> None:
        """Nothing has happened yet.

        Args:
            clients: Names of all, in order.
            sites: Names of the sites that clients are of.
        """
        self.lines: tuple[str, ...] = tuple(sites) if len(sites) <= MOST_LINES else RANGE
        """What is followed by round: every site, or what summarises them."""
        self.quality: dict[int, NDArray[np.float64]] = {}
        """Of every round: QUANTITIES x lines, the mean over a site's clients; NaN where nothing was measured."""
        self.last = pd.DataFrame(columns=list(COLUMNS))
        """The rows of the newest round."""
        self.placed = len(clients) <= MOST_PLACED
        """Whether every client has a place."""
        self.names: tuple[str, ...] = tuple(clients) if self.placed else ()
        """Of the clients that have a place, in order."""
        self.clients = len(clients)
        """Number of all clients."""
        count = len(self.names)
        self.turn: NDArray[np.int8] = np.full(count, -1, np.int8)
        """Of each client (N,): how its last turn ended, an index in TURNS; -1 before the first."""
        self.round: NDArray[np.int32] = np.zeros(count, np.int32)
        """Of each client (N,): the round of that turn; 0 before the first."""
        self.changed_from = 1
        """The first round whose quality may have changed since this was set."""
        self._names = pa.array(self.names, pa.string())
        self._sites = pa.array(self.lines if self.lines is not RANGE else [], pa.string())
        self._unsure = np.zeros(count, np.bool_)  # those whose last turn is void, and which had an earlier one perhaps

    @property
    def newest(self) -> int:
        """The newest round; 0 before the first."""
        return max(self.quality, default=0)

    @property
    def sure(self) -> bool:
        """Whether the last turns are known; if not, because rounds became void, everything has to be taken up again."""
        return not self._unsure.any()

    def take_up(self, change: Change) -> None:
        """Add the rows of some rounds, after forgetting what has become void."""
        self._forget(change.first)
        if change.rows.num_rows:
            rows = _whole(change.rows)
            self._add_quality(rows)
            self._add_turns(rows)
            newest = rows.filter(pc.equal(rows["round"], self.newest))
            self.last = newest.to_pandas() if newest.num_rows else self.last

    def _forget(self, first: int) -> None:
        self.changed_from = min(self.changed_from, first)
        for round_ in [known for known in self.quality if known >= first]:
            del self.quality[round_]
        void = self.round >= first
        self._unsure |= void
        self.round[void], self.turn[void] = 0, -1
        if len(self.last) and self.last["round"].iloc[0] >= first:
            self.last = self.last[:0]

    def _add_quality(self, rows: pa.Table) -> None:
        means = rows.group_by(["round", "site"]).aggregate([(name, "mean") for name in QUANTITIES])
        rounds = means["round"].to_numpy()
        values = np.stack([means[f"{name}_mean"].to_numpy() for name in QUANTITIES]).astype(np.float64)
        values[~np.isfinite(values)] = np.nan
        sites = pc.fill_null(pc.index_in(means["site"].cast(pa.string()), self._sites), -1).to_numpy()
        for round_ in np.unique(rounds):
            at = rounds == round_
            self.quality[int(round_)] = _summary(values[:, at]) if self.lines is RANGE else self._by_site(
                values[:, at], sites[at])  # fmt: skip

    def _by_site(self, values: NDArray[np.float64], sites: NDArray[np.int32]) -> NDArray[np.float64]:
        """Values of some sites (QUANTITIES, n) in the order of the lines."""
        found = np.full((len(QUANTITIES), len(self.lines)), np.nan)
        found[:, sites[sites >= 0]] = values[:, sites >= 0]
        return found

    def _add_turns(self, rows: pa.Table) -> None:
        if not self.placed:
            return
        places, turns = (
            pc.fill_null(pc.index_in(rows[name].cast(pa.string()), pa.array(known, pa.string())), -1).to_numpy()
            for name, known in (("client", self._names), ("outcome", TURNS))
        )
        known = (places >= 0) & (turns >= 0)  # rows are in the order of rounds, and the last one of a client counts
        self.turn[places[known]], self.round[places[known]] = turns[known], rows["round"].to_numpy()[known]
        self._unsure[places[known]] = False


def _whole(rows: pa.Table) -> pa.Table:
    """The rows in the order of rounds, with every column; what a table lacks is null."""
    for name in COLUMNS:
        if name not in rows.column_names:
            kind = pa.string() if name in {"client", "site", "outcome"} else pa.float64()
            rows = rows.append_column(name, pa.nulls(rows.num_rows, kind))
    return rows.sort_by("round")


def _summary(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percentiles over sites (QUANTITIES, 3) of values (QUANTITIES, n)."""
    known = [row[np.isfinite(row)] for row in values]
    return np.stack([np.percentile(row, _PERCENTILES) if row.size else np.full(3, np.nan) for row in known])
