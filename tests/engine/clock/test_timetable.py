"""Three clients with times on paper, in each mode; docs/time.md works the same example out in words.

A, B and C have 10 training slices each and pass 10, 5 and 2 of them through the network in a second. Each receives 20
Mbit at 20 Mbit/s and sends 10 Mbit at 10 Mbit/s: turns of 1 + 1 + 1 = 3 s, 1 + 2 + 1 = 4 s and 1 + 5 + 1 = 7 s.
"""

from collections import Counter
from pathlib import Path

import pytest

from fedsim.engine.clock.timetable import MOST_AHEAD, Timetable
from fedsim.engine.federation import assemble
from fedsim.engine.host.training import make_learner
from fedsim.engine.plan.fits import check_time
from fedsim.engine.record.run_directory import setup_of
from fedsim.workload.reading import load_workload, read_yaml

from .conftest import Make, steps, told

WORKLOADS = sorted((Path(__file__).parents[3] / "workloads").glob("*.yaml"))


def times(timetable: Timetable, rounds: int) -> list[tuple[float, float]]:
    return [(step.begin_s, step.end_s) for step in steps(timetable, rounds)]


def test_a_synchronous_round_ends_with_the_slowest(make: Make) -> None:
    timetable = make()
    assert times(timetable, 3) == [(0, 7), (7, 14), (14, 21)]
    assert told(timetable.step(2)) == [
        ("A", 7, 10, 0, "trained"), ("B", 7, 11, 0, "trained"), ("C", 7, 14, 0, "trained"),
    ]  # fmt: skip


def test_a_deadline_leaves_the_late_out(make: Make) -> None:
    timetable = make("time.mode=deadline", "time.deadline_s=5")
    assert times(timetable, 2) == [(0, 5), (5, 10)]
    assert told(timetable.step(1)) == [
        ("A", 0, 3, 0, "trained"), ("B", 0, 4, 0, "trained"), ("C", 0, 5, 0, "late"),
    ]  # fmt: skip


def test_more_are_drawn_than_are_waited_for(make: Make) -> None:
    timetable = make("time.mode=deadline", "time.deadline_s=60", "time.over_select=1.5", "training.cohort=2")
    assert times(timetable, 2) == [(0, 4), (4, 8)]
    assert told(timetable.step(2)) == [
        ("A", 4, 7, 0, "trained"), ("B", 4, 8, 0, "trained"), ("C", 4, 8, 0, "late"),
    ]  # fmt: skip


def test_the_first_is_waited_for_if_nobody_is_in_time(make: Make) -> None:
    timetable = make("time.mode=deadline", "time.deadline_s=2")
    assert times(timetable, 2) == [(0, 3), (3, 6)]
    assert Counter(turn.outcome for turn in timetable.step(1).turns) == {"trained": 1, "late": 2}


def test_a_deadline_that_nobody_misses_changes_nothing(make: Make) -> None:
    with_deadline, without = make("time.mode=deadline", "time.deadline_s=7"), make()
    assert steps(with_deadline, 5) == steps(without, 5)


def test_a_buffer_of_two(make: Make) -> None:
    timetable = make("time.mode=buffered", "time.buffer=2", "time.concurrency=3")
    assert times(timetable, 5) == [(0, 4), (4, 7), (7, 10), (10, 14), (14, 17)]
    assert [told(step) for step in steps(timetable, 5)] == [
        [("A", 0, 3, 0, "trained"), ("B", 0, 4, 0, "trained")],
        [("A", 4, 7, 0, "trained"), ("C", 0, 7, 1, "trained")],
        [("B", 4, 8, 1, "trained"), ("A", 7, 10, 0, "trained")],
        [("A", 10, 13, 0, "trained"), ("B", 10, 14, 0, "trained")],
        [("C", 7, 14, 2, "trained"), ("A", 14, 17, 0, "trained")],
    ]


def test_each_upload_alone(make: Make) -> None:
    timetable = make("time.mode=asynchronous")
    assert [told(step) for step in steps(timetable, 6)] == [
        [("A", 0, 3, 0, "trained")], [("B", 0, 4, 1, "trained")], [("A", 3, 6, 1, "trained")],
        [("C", 0, 7, 3, "trained")], [("B", 4, 8, 2, "trained")], [("A", 6, 9, 2, "trained")],
    ]  # fmt: skip


@pytest.mark.parametrize("cohort", [2, 3])
def test_equal_speeds_and_a_full_buffer_are_synchronous_rounds(make: Make, cohort: int) -> None:
    alike = [f"federation.sites.{site}.time.compute.samples_per_s=10" for site in (1, 2)]
    alike.append(f"training.cohort={cohort}")
    buffered = make(*alike, "time.mode=buffered", f"time.buffer={cohort}")
    assert steps(buffered, 5) == steps(make(*alike), 5)


def test_regions_wait_for_each_other_only_at_a_sync(make: Make) -> None:
    timetable = make("time.hierarchy={regions: 2, rounds_per_sync: 2}")
    assert times(timetable, 3) == [(0, 7), (7, 14), (14, 21)]
    assert [told(step) for step in steps(timetable, 3)] == [
        [("A", 0, 3, 0, "trained"), ("B", 0, 4, 0, "trained"), ("C", 0, 7, 0, "trained")],
        [("A", 4, 7, 0, "trained"), ("B", 4, 8, 0, "trained"), ("C", 7, 14, 0, "trained")],
        [("A", 14, 17, 0, "trained"), ("B", 14, 18, 0, "trained"), ("C", 14, 21, 0, "trained")],
    ]


def test_one_region_is_none(make: Make) -> None:
    assert steps(make("time.hierarchy={regions: 1, rounds_per_sync: 3}"), 5) == steps(make(), 5)


@pytest.mark.parametrize("mode", ["synchronous", "buffered"])
def test_sites_join_and_leave(make: Make, mode: str) -> None:
    timetable = make(
        f"time.mode={mode}", "time.buffer=3", "federation.sites.0.joins_round=2", "federation.sites.2.leaves_round=3"
    )
    names = [{turn.client for turn in step.turns} for step in steps(timetable, 4)]
    assert names == [{"B", "C"}, {"A", "B", "C"}, {"A", "B", "C"}, {"A", "B"}]


def test_who_leaves_at_work_still_ends_its_turn(make: Make) -> None:
    """C may be drawn for round 1 only, and its upload enters step 2."""
    timetable = make("time.mode=buffered", "time.buffer=2", "time.concurrency=3", "federation.sites.2.leaves_round=1")
    assert [told(step) for step in steps(timetable, 4)] == [
        [("A", 0, 3, 0, "trained"), ("B", 0, 4, 0, "trained")],
        [("A", 4, 7, 0, "trained"), ("C", 0, 7, 1, "trained")],
        [("B", 4, 8, 1, "trained"), ("A", 7, 10, 0, "trained")],
        [("A", 10, 13, 0, "trained"), ("B", 10, 14, 0, "trained")],
    ]
    assert {turn.client for step in steps(timetable, 20)[2:] for turn in step.turns} == {"A", "B"}


def test_windows_of_a_trace(make: Make, tmp_path: Path) -> None:
    """A is there up to 2 s and from 10 s to 20 s; B and C always."""
    (tmp_path / "trace.csv").write_text("client,from_s,to_s\nA,0,2\nA,10,20\n")
    timetable = make("time.available.trace=trace.csv")
    assert [told(step)[0] for step in steps(timetable, 3)] == [
        ("A", 0, 2, 0, "unavailable"), ("A", 7, 7, 0, "unavailable"), ("A", 14, 17, 0, "trained"),
    ]  # fmt: skip
    assert times(timetable, 3) == [(0, 7), (7, 14), (14, 21)]


def test_a_site_with_shifts_of_its_own_does_not_follow_the_trace(make: Make, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("client,from_s,to_s\nA,0,2\nB,0,2\n")
    timetable = make("time.available.trace=trace.csv", "federation.sites.0.time={available: {share: 1}}")
    assert told(timetable.step(2)) == [
        ("B", 7, 7, 0, "unavailable"), ("A", 7, 10, 0, "trained"), ("C", 7, 14, 0, "trained"),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["synchronous", "buffered"])
def test_the_server_waits_for_the_first_to_come(make: Make, tmp_path: Path, mode: str) -> None:
    """All are there from 5 s to 50 s of every minute; 7 steps of 7 s need more than one window."""
    (tmp_path / "trace.csv").write_text("client,from_s,to_s\nA,5,50\nB,5,50\nC,5,20\nC,20,50\n")
    keys = ("time.available={trace: trace.csv, period_h: 0.016666666666666666}", f"time.mode={mode}", "time.buffer=3")
    timetable = make(*keys)
    assert told(timetable.step(1)) == [
        ("A", 5, 8, 0, "trained"), ("B", 5, 9, 0, "trained"), ("C", 5, 12, 0, "trained"),
    ]  # fmt: skip
    assert timetable.step(6).end_s == 47
    assert {turn.outcome for turn in timetable.step(7).turns if turn.client == "C"} == {"unavailable"}
    assert timetable.step(8).turns[0].begin_s == 65


MODES = {
    "synchronous": (),
    "deadline": ("time.deadline_s=5",),
    "buffered": ("time.buffer=2",),
    "asynchronous": (),
    "regions": ("time.hierarchy={regions: 2, rounds_per_sync: 2}",),
}
WILD = ("time.dropout=0.4", "time.jitter=0.5", "time.available={share: [0.2, 1], period_h: 0.01}")


@pytest.mark.parametrize("mode", MODES)
def test_steps_are_sound_whatever_happens(make: Make, mode: str) -> None:
    """A client is at work once at a time, none begins on a step that is not done, and all steps have a turn."""
    keys = (*MODES[mode], *WILD, f"time.mode={mode if mode != 'regions' else 'synchronous'}")
    found, free, begins = steps(make(*keys), 60), dict.fromkeys("ABC", 0.0), dict[int, float]()
    for before, step in zip([None, *found], found, strict=False):
        assert step.begin_s == (before.end_s if before else 0)
        begins[step.round] = step.begin_s
        assert list(step.turns) == sorted(step.turns, key=lambda turn: (turn.end_s, turn.client))
        assert max(Counter(turn.client for turn in step.turns).values()) == 1
        assert any(turn.outcome == "trained" for turn in step.turns)
        for turn in step.turns:
            assert free[turn.client] <= turn.begin_s <= turn.end_s <= step.end_s
            assert 0 <= turn.version < turn.round == step.round
            assert mode == "regions" or begins[turn.version + 1] <= turn.begin_s
            free[turn.client] = turn.end_s
    outcomes = Counter(turn.outcome for step in found for turn in step.turns)
    assert {"trained", "dropped", "unavailable"} <= outcomes.keys()


@pytest.mark.parametrize("mode", MODES)
def test_a_step_is_the_same_whenever_it_is_asked_for(make: Make, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsim.engine.clock.timetable._KEPT", 1)
    monkeypatch.setattr("fedsim.engine.clock.timetable._FEWEST", 2)
    keys = (*MODES[mode], *WILD, f"time.mode={mode if mode != 'regions' else 'synchronous'}")
    once, again = make(*keys), make(*keys)
    found = steps(once, 12)
    assert [again.step(round_) for round_ in range(12, 0, -1)] == found[::-1]


def test_steps_that_are_looked_at_ahead_are_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many turns they have: to go back is to compute all steps again."""
    monkeypatch.setattr("fedsim.engine.clock.timetable._KEPT", 1)
    timetable = make("time.mode=asynchronous")
    first = timetable.step(1)
    timetable.step(1 + MOST_AHEAD)
    assert timetable.step(1) is first


def test_the_bytes_are_those_of_the_method(make: Make, tmp_path: Path) -> None:
    """FedAvg sends all parameters as float32 both ways: at 1 Mbit/s each, a byte takes 8 microseconds."""
    keys = ("time={uplink_mbps: 1, downlink_mbps: 1}", *(f"federation.sites.{site}.time=null" for site in (1, 2)))
    workload = load_workload(tmp_path / "paper.yaml", keys).settled()
    learner = make_learner(setup_of(workload))
    timetable = Timetable.of(workload, assemble(workload).clients, learner)
    assert timetable is not None
    sent = learner.shared.nbytes
    assert timetable.step(1).end_s == pytest.approx(2 * sent * 8e-6)


@pytest.mark.parametrize("path", [path for path in WORKLOADS if "time" in read_yaml(path)], ids=lambda path: path.stem)
def test_rounds_of_the_workloads_end(path: Path, cache: Path) -> None:
    """Also those of a night shift, which reads its trace."""
    workload = load_workload(path, [f"federation.cache={cache}"]).settled()
    check_time(workload, assemble(workload).clients)
