"""Rounds that no client finishes: refused in one line, before a turn where no turn can be finished."""

from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.clock.conditions import Conditions
from fedsim.engine.clock.turns import Outcome

from .conftest import Make, steps, told

MODES = ("synchronous", "deadline", "buffered", "asynchronous")


def test_a_trace_that_is_over_ends_the_run_in_one_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("client,from_s,to_s\nA,0,9\nB,0,9\nC,0,9\n")
    for mode in MODES:
        timetable = make("time.available.trace=trace.csv", f"time.mode={mode}", "time.deadline_s=9", "time.buffer=3")
        with pytest.raises(InputError, match=r"^time: round \d+: no client finishes its turn any more; .*$"):
            timetable.step(9)
        with pytest.raises(InputError, match=r"^time: round \d+: no client finishes"):
            timetable.step(9)
        assert timetable.step(1).end_s <= 9


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places of the clients that begin a turn; a round is given up after fifty turns in vain."""
    begun, end = list[int](), Conditions.end

    def noted(self: Conditions, place: int, begin: float, number: int) -> tuple[float, Outcome]:
        begun.append(place)
        return end(self, place, begin, number)

    monkeypatch.setattr(Conditions, "end", noted)
    for at in ("cohorts", "overlapping"):
        monkeypatch.setattr(f"fedsim.engine.clock.{at}.MOST_IN_VAIN", 50)
    return begun


@pytest.mark.parametrize("mode", MODES)
def test_a_round_of_many_clients_is_given_up_as_soon(make: Make, begun: list[int], mode: str) -> None:
    """After a number of turns in vain, not only of attempts, in each of which all clients may have one."""
    timetable = make("time.dropout=0.9999", f"time.mode={mode}", "time.deadline_s=9", "time.buffer=2")
    with pytest.raises(InputError, match=r"^time: round 1: no client finishes its turn"):
        timetable.step(1)
    assert 50 < len(begun) <= 54


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "key",
    ["available={share: 0.0008, period_h: 1}", "available.trace=trace.csv", "dropout=0.999999"],
    ids=["shifts", "trace", "dropout"],
)
def test_a_run_that_no_client_can_finish_is_refused_before_a_turn(
    make: Make, tmp_path: Path, begun: list[int], mode: str, key: str
) -> None:
    """Windows of 2.88 s and turns of 3 s or more; or one of a million turns that does not drop out."""
    (tmp_path / "trace.csv").write_text("client,from_s,to_s\n" + "".join(f"{name},5,7.8\n" for name in "ABC"))
    timetable = make(f"time.{key}", f"time.mode={mode}", "time.deadline_s=9", "time.buffer=2")
    with pytest.raises(InputError, match=r"^time: round 1: no client finishes its turn"):
        timetable.step(1)
    assert not begun


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("keys", "step"),
    [
        (("available={trace: trace.csv, period_h: 1}",), 2000),
        (("available={share: 0.0008, period_h: 1}", "jitter=0.1"), 1),
        (("dropout=0.98",), 1),
    ],
    ids=["windows as long as turns", "jitter", "dropout"],
)
def test_a_run_that_a_client_can_finish_goes_on(
    make: Make, tmp_path: Path, mode: str, keys: tuple[str, ...], step: int
) -> None:
    """C alone has a window in which its turn fits, whatever a time after 2,000 hours is rounded to."""
    (tmp_path / "trace.csv").write_text("client,from_s,to_s\nA,0.3,3.2\nB,0.3,4.2\nC,0.3,7.3\n")
    timetable = make(*(f"time.{key}" for key in keys), f"time.mode={mode}", "time.deadline_s=9", "time.buffer=1")
    assert "trained" in {turn.outcome for turn in timetable.step(step).turns}


def test_an_upload_on_its_way_enters_its_step_though_no_other_can_follow(make: Make, tmp_path: Path) -> None:
    """After round 1 only B is in, whose window is shorter than its turns, and C is still at work."""
    (tmp_path / "trace.csv").write_text("client,from_s,to_s\nB,0,1\n")
    left = [f"federation.sites.{site}.leaves_round=1" for site in (0, 2)]
    timetable = make("time.mode=asynchronous", "time.available={trace: trace.csv, period_h: 1}", *left)
    assert [told(step) for step in steps(timetable, 2)] == [
        [("B", 0, 1, 0, "unavailable"), ("A", 0, 3, 0, "trained")], [("C", 0, 7, 1, "trained")],
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"^time: round 3: no client finishes its turn"):
        timetable.step(3)
