"""The ledger: rounds.parquet and clients.parquet, rewritten after every round so that they can be read meanwhile."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedsim.config import Workload
from fedsim.engine.client import ClientSpec
from fedsim.engine.host import Row
from fedsim.files import replacing

QUALITY = ("nmse", "psnr", "ssim")
UNKNOWN: Row = dict.fromkeys(QUALITY, math.nan)
"""The quality of a client that was not validated."""


class Ledger:
    """What happened, round by round and client by client."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._tables: dict[str, list[Row]] = {"rounds": [], "clients": []}

    def resume(self, round_: int) -> None:
        """Take up what was written up to and including a round."""
        for name in self._tables:
            path = self._run / f"{name}.parquet"
            frame = pd.read_parquet(path) if path.exists() else pd.DataFrame({"round": []})
            self._tables[name] = [
                {str(key): value for key, value in row.items()}
                for row in frame[frame["round"] <= round_].to_dict("records")
            ]

    def append(self, round_row: Mapping[str, Any], client_rows: list[Row]) -> None:
        """Add a round and write both files."""
        self._tables["rounds"].append(dict(round_row))
        self._tables["clients"] += client_rows
        for name, rows in self._tables.items():
            write_table(self._run / f"{name}.parquet", pd.DataFrame(rows))

    @property
    def rounds(self) -> pd.DataFrame:
        """One row a round."""
        return pd.DataFrame(self._tables["rounds"])

    @property
    def clients(self) -> pd.DataFrame:
        """One row a client and round."""
        return pd.DataFrame(self._tables["clients"])


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, replacing what was there."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def stamped(rows: list[Row], workload: Workload, manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows about volumes, with what a number must not be read without."""
    if not rows:
        return pd.DataFrame()
    stamps = manifest.groupby(["site", "volume"])[["acceleration", "within_subject"]].first()
    return (
        pd.DataFrame(rows)
        .join(stamps, on=["site", "volume"])
        .astype({"within_subject": bool})
        .assign(normalise=workload.federation.normalise, algorithm=workload.algorithm.name, seed=workload.seed)
    )


def row_key(evaluation: pd.DataFrame, most: int) -> str:
    """What an evaluation's table has a row for: `client`, or `site` if clients are too many or hold several sites."""
    clients, sites = evaluation["client"].nunique(), evaluation["site"].nunique()
    return "client" if sites <= clients <= most else "site"


def idle_row(round_: int, client: ClientSpec) -> Row:
    """The row of a client that was not drawn for a round."""
    zeros = dict.fromkeys(("weight", "train_seconds", "wait_seconds"), 0.0)
    return {
        "round": round_, "client": client.name, "site": client.site, "samples": client.data.samples(),
        "loss": math.nan, **zeros, "steps": 0, "uplink_bytes": 0, "downlink_bytes": 0, "node": "", "pid": 0,
    }  # fmt: skip


def joined(before: Row | None, row: Row) -> Row:
    """One row for a client that worked in several phases: times and bytes add up, the rest is the last phase's."""
    added = ("steps", "train_seconds", "uplink_bytes", "downlink_bytes")
    return row if before is None else {**before, **row, **{key: before[key] + row[key] for key in added}}


def round_row(round_: int, seconds: float, rows: list[Row], clients: int) -> Row:
    """The row of a round: means over clients, sums of bytes."""
    frame = pd.DataFrame(rows)
    means = {key: float(np.nanmean(frame[key])) if frame[key].notna().any() else math.nan for key in ("loss", *QUALITY)}
    byte_sums = {key: int(frame[key].sum()) for key in ("uplink_bytes", "downlink_bytes")}
    return {"round": round_, "seconds": seconds, "clients": clients, "failed": 0, **means, **byte_sums}
