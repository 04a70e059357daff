"""The ledger: rounds.parquet and clients.parquet, rewritten after every round so that they can be read meanwhile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.engine.host import Row
from fedsim.files import replacing


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
