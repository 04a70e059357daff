"""The ledger of a run that is going on."""

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from fedsim.engine.host.messages import Row
from fedsim.engine.observer import Observer
from fedsim.engine.record.ledger import table_of
from fedsim.engine.record.run_directory import Run

TABLES = ("rounds", "clients")


class Reader(Observer):
    """Reads both tables when a round ends, as a script outside would."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self.seen: list[list[int]] = []

    def round_ends(self, row: Row) -> None:
        for name in TABLES:
            path = self._run / f"{name}.parquet"
            assert path.is_dir(), "tables grow in parts"
            assert len(pd.read_parquet(path)) == len(getattr(Run(self._run), name))
            self.seen.append(pd.read_parquet(path)["round"].unique().tolist())


@pytest.mark.slow
def test_both_tables_can_be_read_after_every_round_and_are_files_at_the_end(
    simulate: Callable[..., Run], tmp_path: Path
) -> None:
    for rounds, reader in ((2, Reader(tmp_path / "run")), (3, Reader(tmp_path / "run"))):
        run = simulate(f"training.rounds={rounds}", out=tmp_path / "run", resume=rounds > 2, observer=reader)
        assert reader.seen[-2:] == [list(range(1, rounds + 1))] * len(TABLES)
        assert all((run.path / f"{name}.parquet").is_file() for name in TABLES)


def test_rows_become_the_table_that_pandas_makes_of_them() -> None:
    """With its types, also of columns in which nothing is known, and its nulls."""
    rows: list[Row] = [
        {"round": 1, "client": "A", "loss": 0.5, "psnr": math.nan, "steps": 2, "mixed": 0},
        {"round": 1, "client": "B", "loss": math.nan, "psnr": math.nan, "steps": 0, "mixed": 0.5, "later": 3.0},
    ]
    expected = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False).replace_schema_metadata()
    assert table_of(rows).equals(expected)
    assert table_of(rows[:1]).equals(expected.slice(0, 1).drop(["mixed", "later"]).append_column("mixed", [[0]]))
