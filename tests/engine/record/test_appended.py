"""A table that grows is at every moment, for every reader, the rows that were written so far, each once."""

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from fedsim.core.errors import DamagedError
from fedsim.engine.record import appended
from fedsim.engine.record.appended import AppendedTable
from fedsim.engine.record.growing import GrowingTable

PER_ROUND = 3


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table whose parts are full after five rounds."""
    monkeypatch.setattr(appended, "_FULL", 5 * rows([1]).nbytes - 1)
    return tmp_path / "clients.parquet"


def rows(rounds: Iterable[int], **more: float) -> pa.Table:
    numbers = np.repeat(list(rounds), PER_ROUND)
    names = pd.Series([f"C-{index % PER_ROUND}" for index in range(len(numbers))])
    values = {key: np.full(len(numbers), value) for key, value in more.items()}
    return pa.Table.from_pandas(pd.DataFrame({"round": numbers, "client": names, "loss": 1 / numbers, **values}))


def grow(table: AppendedTable, rounds: Iterable[int], **more: float) -> None:
    for number in rounds:
        table.append(rows([number], **more))
        table.flush()


def reopened(path: Path, last: int) -> AppendedTable:
    table = AppendedTable(path)
    table.keep(pc.field("round") <= last)
    return table


def rounds_in(frame: pd.DataFrame) -> list[int]:
    """The rounds of a table, after a look at whether each has all its rows and in order."""
    numbers = frame["round"].tolist()[::PER_ROUND]
    pd.testing.assert_frame_equal(frame[["round", "client", "loss"]], rows(numbers).to_pandas())
    return numbers


@pytest.mark.slow
def test_it_reads_as_one_table_before_and_after_every_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes what a reader sees is a renaming: pandas and pyarrow look before and after each."""
    seen: list[int] = []

    def look() -> None:
        if path.exists():
            found = rounds_in(pd.read_parquet(path))
            assert found == list(range(1, len(found) + 1)) == rounds_in(ds.dataset(path).to_table().to_pandas())
            seen.append(len(found))

    for name in ("replace", "rename"):
        real = getattr(Path, name)

        def looked_at(source: Path, target: Path, real: object = real) -> object:
            look()
            moved = real(source, target)  # type: ignore[operator]
            look()
            return moved

        monkeypatch.setattr(Path, name, looked_at)
    table = AppendedTable(path)
    grow(table, range(1, 13))
    assert len(list(path.iterdir())) == 3
    assert seen == sorted(seen)
    assert max(seen) == 12
    seen.clear()
    table.keep(pc.field("round") <= 3)
    assert seen == sorted(seen, reverse=True)
    assert min(seen) == 3
    grow(table, range(4, 15))
    seen.clear()
    table.merge()
    assert path.is_file()
    assert set(seen) == {14}


def test_a_reader_that_has_listed_the_parts_finds_all_of_them(path: Path) -> None:
    table = AppendedTable(path)
    grow(table, range(1, 13))
    listed = ds.dataset(path)
    table.keep(pc.field("round") <= 2)
    grow(table, range(3, 30), extra=1.0)
    found = rounds_in(listed.to_table().to_pandas())
    assert found == list(range(1, len(found) + 1))


def test_full_parts_are_left_alone_and_memory_is_a_part(path: Path) -> None:
    table = AppendedTable(path)
    grow(table, range(1, 13))
    full = {part: part.stat().st_ino for part in sorted(path.iterdir())[:-1]}
    grow(table, range(13, 40))
    assert {part: part.stat().st_ino for part in full} == full
    assert len(list(path.iterdir())) == 8


def test_later_columns_are_null_before(path: Path) -> None:
    table = AppendedTable(path)
    grow(table, range(1, 13))
    grow(table, range(13, 20), ratio=0.5)
    grow(table, [20])
    for merge in (False, True):
        frame = pd.read_parquet(path)
        assert frame.groupby("round")["ratio"].first().dropna().index.tolist() == list(range(13, 20))
        assert table.read(["ratio", "unknown"]).column_names == ["ratio"]
        if not merge:
            table.merge()


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("last", [2, 5, 7, 12])
def test_it_continues_where_it_is_cut(path: Path, merged: bool, last: int) -> None:
    before = AppendedTable(path)
    grow(before, range(1, 13))
    if merged:
        before.merge()
    table = reopened(path, last)
    assert rounds_in(pd.read_parquet(path)) == list(range(1, last + 1))
    grow(table, range(last + 1, 20))
    assert rounds_in(pd.read_parquet(path)) == list(range(1, 20))
    table.merge()
    assert rounds_in(pd.read_parquet(path)) == list(range(1, 20))
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing else is left"


def test_a_large_table_stays_in_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = AppendedTable(path)
    grow(table, range(1, 13))
    monkeypatch.setattr(appended, "_SMALL", sum(part.stat().st_size for part in path.iterdir()) - 1)
    table.merge()
    assert path.is_dir()
    assert rounds_in(pd.read_parquet(path)) == list(range(1, 13))


@pytest.mark.parametrize("moved", [False, True])
def test_a_crash_while_it_becomes_one_file_costs_nothing(path: Path, moved: bool) -> None:
    table = AppendedTable(path)
    grow(table, range(1, 13))
    appended.write_arrow(path.with_name(f".{path.name}.next"), rows(range(1, 13)))
    if moved:
        path.rename(path.with_name(f".{path.name}.previous"))
    grow(reopened(path, 12), [13])
    assert rounds_in(pd.read_parquet(path)) == list(range(1, 14))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_half_a_part_that_a_killed_process_left_is_swept(path: Path) -> None:
    grow(AppendedTable(path), range(1, 13))
    half = path / ".part-000002.parquet.part"
    half.write_bytes(b"")
    os.utime(half, (0, 0))
    grow(reopened(path, 12), [13])
    assert rounds_in(pd.read_parquet(path)) == list(range(1, 14))
    assert not half.exists()


def test_a_damaged_part_is_named(path: Path) -> None:
    grow(AppendedTable(path), range(1, 13))
    first = path / "part-000000.parquet"
    first.write_bytes(first.read_bytes()[:-9])
    with pytest.raises(DamagedError, match=r"part-000000.parquet: is damaged"):
        reopened(path, 12)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda first: first.with_name("part-000001.parquet").unlink(), "part-000001.parquet is missing"),
        (lambda first: shutil.copy(first, first.with_name("part-000000 (copy).parquet")), "is no part of it"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused_and_left_alone(
    path: Path, damage: Callable[[Path], object], said: str
) -> None:
    grow(AppendedTable(path), range(1, 18))
    damage(path / "part-000000.parquet")
    before = {part: part.read_bytes() for part in path.iterdir()}
    for read in (
        lambda: reopened(path, 16),
        lambda: appended.read_arrow(path),
        lambda: [*GrowingTable(path, ["round"]).changes()],
    ):
        with pytest.raises(DamagedError, match=rf"clients.parquet: is damaged.*{re.escape(said)}"):
            read()
    assert {part: part.read_bytes() for part in path.iterdir()} == before


def test_another_table_is_refused_and_left_alone(path: Path) -> None:
    pd.DataFrame({"x": [1]}).to_parquet(path)
    before = path.read_bytes()
    with pytest.raises(DamagedError, match=r"clients.parquet: is .* another table"):
        reopened(path, 1)
    assert path.read_bytes() == before
