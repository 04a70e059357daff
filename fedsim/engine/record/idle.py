"""Clients that took no part in a round: clients.parquet has no rows of them, and readers that want some add them."""

import math
from pathlib import Path

import pandas as pd

from fedsim.engine.host.messages import Row
from fedsim.engine.record.ledger import TIMES, UNKNOWN, read_table
from fedsim.workload.names import POOLED


def idle_row(round_: int, client: str, site: str, samples: int) -> Row:
    """The row of a client that did not train in a round; `samples` are its training slices."""
    return {
        "round": round_, "client": client, "site": site, "samples": samples,
        "outcome": "idle", "node": "", "pid": 0, "memory_bytes": 0, "device": "", "private_bytes": 0,
        "weight": 0.0, "loss": math.nan, "steps": 0, "begin_seconds": math.nan,
        **dict.fromkeys(TIMES, 0.0), "uplink_bytes": 0, "downlink_bytes": 0,
    }  # fmt: skip


def with_idle(clients: pd.DataFrame, manifest: Path) -> pd.DataFrame:
    """A row per client and round.

    Args:
        clients: Rows of clients.parquet.
        manifest: manifest.parquet, which lists the clients.

    Raises:
        DamagedError: the manifest is not what was written.
    """
    if not manifest.exists():
        return clients
    owned = read_table(manifest, ["client", "site", "split"]).query("split == 'train'").dropna()
    counts = owned.groupby("client", sort=False)["site"].agg(["first", "size"])
    there = set(zip(clients["round"], clients["client"], strict=True))
    missing = [
        {**idle_row(int(round_), client, POOLED if client == POOLED else site, slices), **UNKNOWN}
        for round_ in clients["round"].unique()
        for client, site, slices in counts.itertuples(name=None)
        if (round_, client) not in there
    ]
    if not missing:
        return clients
    added = pd.DataFrame(missing)
    whole = pd.concat([clients, added[[key for key in added if key in clients]]], ignore_index=True)
    place = {client: at for at, client in enumerate(counts.index)}
    return whole.sort_values(
        ["round", "client"], key=lambda key: key.map(place) if key.name == "client" else key, ignore_index=True
    )
