"""A table that is read while it grows: each row once, whatever the writer does meanwhile."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fedsim.core.errors import DamagedError
from fedsim.engine.record import appended
from fedsim.engine.record.appended import AppendedTable, read_arrow
from fedsim.engine.record.growing import GrowingTable


def rows(*rounds: int) -> pa.Table:
    return pa.table({"round": rounds, "loss": [float(one) for one in rounds], "other": ["x" for _ in rounds]})


class Reader:
    """What a reader that takes up every change knows, and what it had to read for it."""

    def __init__(self, path: Path) -> None:
        self.table, self.known, self.read = GrowingTable(path, ["round", "loss", "absent"]), [], 0

    def look(self) -> list[int]:
        self.read = 0
        for change in self.table.changes():
            assert change.rows.column_names in (["round", "loss"], ["round"])
            self.read += change.rows.num_rows
            self.known = [one for one in self.known if one < change.first] + change.rows["round"].to_pylist()
        return self.known


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppendedTable:
    """Parts of two rounds or so."""
    monkeypatch.setattr(appended, "_FULL", 40)
    return AppendedTable(tmp_path / "table.parquet")


def write(table: AppendedTable, *rounds: int) -> None:
    for round_ in rounds:
        table.append(rows(round_))
        table.flush()


def test_a_look_reads_what_is_new(table: AppendedTable) -> None:
    reader = Reader(table.path)
    assert reader.look() == []
    write(table, 1)
    assert reader.look() == [1]
    write(table, *range(2, 40))
    assert reader.look() == list(range(1, 40))
    assert reader.look() == list(range(1, 40))
    assert reader.read == 0
    write(table, 40)
    assert reader.look() == list(range(1, 41))
    assert reader.read < 5, "the newest part, or two"


@pytest.mark.parametrize("kept", [0, 1, 4, 9])
@pytest.mark.parametrize("looks_between", [True, False])
def test_rounds_that_are_done_again_replace_those_before(table: AppendedTable, kept: int, looks_between: bool) -> None:
    reader = Reader(table.path)
    write(table, *range(1, 10))
    reader.look()
    table.keep(pc.field("round") <= kept)
    if looks_between:
        assert reader.look() == list(range(1, kept + 1))
    write(table, *range(kept + 1, 12))
    assert reader.look() == list(range(1, 12))


def test_a_table_that_becomes_one_file_or_vanishes_is_read_again(table: AppendedTable) -> None:
    reader = Reader(table.path)
    write(table, *range(1, 10))
    reader.look()
    table.merge()
    assert table.path.is_file()
    assert reader.look() == list(range(1, 10))
    table.clear()
    assert reader.look() == []


def test_a_part_that_cannot_be_read_is_read_when_it_can(table: AppendedTable) -> None:
    write(table, *range(1, 10))
    part = sorted(table.path.glob("part-*"))[2]
    whole, reader = part.read_bytes(), Reader(table.path)
    part.write_bytes(whole[:50])
    for _ in range(2):
        with pytest.raises(DamagedError, match="is damaged"):
            reader.look()
    part.write_bytes(whole)
    assert reader.look() == read_arrow(table.path)["round"].to_pylist()


def test_another_table_is_said_to_be_one(tmp_path: Path) -> None:
    appended.write_arrow(tmp_path / "t", pa.table({"loss": [1.0]}))
    with pytest.raises(DamagedError, match="no column round"):
        list(GrowingTable(tmp_path / "t", ["round"]).changes())
