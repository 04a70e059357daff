"""Traces and windows: what is read, and what is refused in one line."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedsim.core.errors import InputError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.trace import read_trace
from fedsim.engine.clock.windows import Shifts, Traced, Windows
from fedsim.engine.federation import assemble
from fedsim.workload.schema import Workload
from fedsim.workload.time import Available

BAD: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "is not a table"),
    "a head alone": ("client,from_s,to_s\n", "has no rows"),
    "no client": ("who,from_s,to_s\nA.1,0,1\n", "has no column client"),
    "no end": ("client,from_s\nA.1,0\n", "has no column to_s"),
    "semicolons": ("client;from_s;to_s\nA.1;0;1\n", "it needs client, from_s and to_s, separated by commas"),
    "an unknown client": ("client,from_s,to_s\nA.1,0,1\nZ,0,1\n", "row 2: 'Z' is not a client; A.1, "),
    "an empty client": ("client,from_s,to_s\nA.1,0,1\n,0,1\n", "row 2: has no client"),
    "words": ("client,from_s,to_s\nA.1,soon,later\n", "row 1: from_s and to_s must be numbers of seconds"),
    "an empty time": ("client,from_s,to_s\nA.1,0,\n", "row 1: from_s and to_s must be numbers of seconds"),
    "infinite": ("client,from_s,to_s\nA.1,0,inf\n", "row 1: from_s and to_s must be numbers of seconds"),
    "negative": ("client,from_s,to_s\nA.1,-1,3\n", "row 1: from_s must be 0 or more"),
    "empty windows": ("client,from_s,to_s\nA.1,3,3\n", "row 1: to_s must be after from_s"),
    "backwards": ("client,from_s,to_s\nA.1,3,2\n", "row 1: to_s must be after from_s"),
    "unsorted": ("client,from_s,to_s\nA.1,5,6\nA.1,1,2\n", "row 2: begins before the client's window above it; sort"),
    "overlapping": ("client,from_s,to_s\nA.1,1,6\nA.1,5,9\n", "row 2: begins before the client's window above it ends"),
    "beyond the period": ("client,from_s,to_s\nA.1,1,90000\n", "row 1: to_s must be within the period of 24 h"),
    "a field more": ("client,from_s,to_s\nA.1,0,1,2\n", "its rows have more fields than its first line has names"),
    "a comma more": ("client,from_s,to_s\nA.1,0,1,\n", "its rows have more fields than its first line has names"),
    "a column twice": ("client,from_s,to_s,to_s\nA.1,0,1,2\n", "has two columns to_s"),
    "too many columns": ("client,from_s,to_s\nA.1,1,2,3,4,5\nA.1\n", "time.available.trace"),
    "binary": (b"\x00\xff\xfe\x81", "is not a table"),
    "truth": ("client,from_s,to_s\nA.1,False,True\n", "row 1: from_s and to_s must be numbers of seconds"),
    "dates": ("client,from_s,to_s\nA.1,2026-01-01,2026-01-02\n", "row 1: from_s and to_s must be numbers of seconds"),
    "no hospital of that name": ("client,from_s,to_s\nNA,0,1\n", "row 1: 'NA' is not a client; A.1, "),
}


@pytest.fixture
def clients(workload: Callable[..., Workload]) -> Clients:
    return assemble(workload()).clients


@pytest.mark.parametrize("what", BAD)
def test_a_bad_trace_is_refused_in_one_line(clients: Clients, tmp_path: Path, what: str) -> None:
    content, message = BAD[what]
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as refused:
        read_trace(Available(trace=tmp_path / "t.csv", period_h=24), clients)
    assert str(refused.value).startswith(f"time.available.trace: {tmp_path / 't.csv'}")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_trace_of_sites_that_are_one_client(workload: Callable[..., Workload], tmp_path: Path) -> None:
    pooled = assemble(workload("algorithm={name: centralised}")).clients
    (tmp_path / "t.csv").write_text("client,from_s,to_s\nA,0,1\n")
    with pytest.raises(InputError, match=r"row 1: .A. is not a client; the only one is all$"):
        read_trace(Available(trace=tmp_path / "t.csv"), pooled)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_no_trace_and_no_table(clients: Clients, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_trace(Available(trace=tmp_path / name), clients)
    (tmp_path / "t.parquet").write_text("client,from_s,to_s\n")
    with pytest.raises(InputError, match="is not a table"):
        read_trace(Available(trace=tmp_path / "t.parquet"), clients)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_windows_are_those_of_the_table(clients: Clients, tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"client": [clients.names[1]] * 3, "from_s": [1, 4, 9], "to_s": [4, 6, 10]})
    if name == "t.csv":
        table.to_csv(tmp_path / name, index=False)
    else:
        table.to_parquet(tmp_path / name)
    read = read_trace(Available(trace=tmp_path / name, period_h=20 / 3600), clients)
    assert list(read) == [1]
    at = {now: read[1].at(now) for now in (0, 1, 4, 5.5, 6, 9.5, 10, 21, 26)}
    one, two, three = (1, 6), (9, 10), (21, 26)
    assert at == {0: one, 1: one, 4: one, 5.5: one, 6: two, 9.5: two, 10: three, 21: three, 26: (29, 30)}


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("from_s", pd.to_datetime(["2026-01-01"])), ("to_s", pd.to_timedelta(["4s"])), ("to_s", [[4.0, 5.0]]),
        ("from_s", [True]), ("to_s", [None]),
    ],
)  # fmt: skip
def test_a_table_of_other_things_than_seconds(
    clients: Clients, tmp_path: Path, column: str, values: "pd.Index[Any] | list[Any]"
) -> None:
    table = pd.DataFrame({"client": [clients.names[0]], "from_s": [0.0], "to_s": [4.0]})
    table.assign(**{column: values}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"row 1: from_s and to_s must be numbers of seconds$"):
        read_trace(Available(trace=tmp_path / "t.parquet"), clients)


def test_clients_may_be_categories(clients: Clients, tmp_path: Path) -> None:
    names = pd.Categorical([clients.names[0]], categories=["Z", clients.names[0]])
    pd.DataFrame({"client": names, "from_s": [0], "to_s": [4]}).to_parquet(tmp_path / "t.parquet")
    assert list(read_trace(Available(trace=tmp_path / "t.parquet"), clients)) == [0]


def test_a_night_is_one_window(clients: Clients, tmp_path: Path) -> None:
    """From 20 to 8 o'clock, every day, with a nap at noon; and a client that is there all day."""
    night, day = clients.names[:2]
    rows = [
        (night, 0, 28_800),
        (night, 43_200, 46_800),
        (night, 72_000, 86_400),
        (day, 0, 43_200),
        (day, 43_200, 86_400),
    ]
    pd.DataFrame(rows, columns=["client", "from_s", "to_s"]).to_csv(tmp_path / "t.csv", index=False)
    read = read_trace(Available(trace=tmp_path / "t.csv", period_h=24), clients)
    first, nap, next_ = (-14_400, 28_800), (43_200, 46_800), (72_000, 115_200)
    at = {now: read[0].at(now) for now in (0, 28_799, 28_800, 46_799, 46_800, 80_000, 86_400, 115_199)}
    assert list(at.values()) == [first, first, nap, nap, next_, next_, next_, next_]
    assert read[0].at(115_200) == (129_600, 133_200)
    assert read[1].at(86_400) == (-math.inf, math.inf)
    once = read_trace(Available(trace=tmp_path / "t.csv"), clients)
    assert (once[0].at(80_000), once[0].at(86_400)) == ((72_000, 86_400), (math.inf, math.inf))


def test_shifts_come_once_in_a_period() -> None:
    shifts = Shifts(period=24, length=8, phase=20)
    assert [shifts.at(now) for now in (0, 3.9, 4, 19, 20, 27.9, 28)] == [
        (-4, 4), (-4, 4), (20, 28), (20, 28), (20, 28), (20, 28), (44, 52),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "windows", [Traced([0.1, 3.0], [0.3, 7.3], period=36), Shifts(period=36, length=7.2, phase=0.1)]
)
def test_a_window_is_over_when_it_ends(windows: Windows) -> None:
    """However sums are rounded: a turn that began at the end of its window would take no time, again and again."""
    now = 0.0
    for _ in range(1000):
        _, end = windows.at(now)
        assert end > now
        now = end


@pytest.mark.parametrize("windows", [Traced([0.1], [0.2], period=36), Shifts(period=36, length=0.1, phase=0.1)])
def test_windows_that_rounding_empties_never_come(windows: Windows) -> None:
    assert windows.at(1e17) == (math.inf, math.inf)
