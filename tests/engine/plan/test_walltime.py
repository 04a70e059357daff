"""A run with a walltime ends in time with a checkpoint, and resumed it is the run that had all the time."""

import logging
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedsim.core.errors import InputError
from fedsim.engine.host.messages import Row
from fedsim.engine.plan.walltime import ENDING_S, LOOKED_AT, MORE, Walltime
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.study.point import run_point
from fedsim.workload.schema import Workload
from tests.conftest import unplaced
from tests.engine.conftest import assert_same, tensors

ROUND_S = 60.0
BUFFERED = (
    "model={domain: image, channels: 2, pools: 1}", "federation.matrix=[16, 16]", "federation.sites.1.matrix=[32, 32]",
    "training.rounds=6", "metrics.every=0", "engine.checkpoint_every=3",
    "time={mode: buffered, buffer: 2, concurrency: 4, compute: {samples_per_s: [1, 20]}, jitter: 0.3}",
)  # fmt: skip


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now

    def round(self, _row: Row) -> None:
        self.now += ROUND_S


def enough_for(rounds: int, took: float = ROUND_S) -> float:
    """What is just enough for so many rounds that take as long [s], with the margin of the last."""
    return (rounds - 1) * took + MORE * took + ENDING_S


def train(workload: Workload, out: Path, seconds: float) -> bool:
    """Train, or go on, in rounds that take a minute."""
    clock = Clock()
    walltime = Walltime(seconds, clock)
    with Simulation(workload, out, resume=True) as simulation:
        done = simulation.run(between=clock.round, walltime=walltime)
        if done:
            simulation.evaluate()
    assert bool(walltime.why) != done
    return done


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:30", 30), ("30:00", 1800), ("2:00:00", 7200), ("02:00:01", 7201), ("1-00:00:00", 86400), ("26:00:00", 93600)],
)
def test_a_time_is_read_as_slurm_writes_it(text: str, seconds: float) -> None:
    given, same = Walltime.of(text), Walltime(seconds)
    assert vars(same)["_limit"] == vars(given)["_limit"] == seconds


@pytest.mark.parametrize(
    "text", ["", "2", "2h", "0:00", "-1:00", "1:60", "1-00", "UNLIMITED", "1:00:00:00", "9" * 9 + ":00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--walltime .*: is not a time; write H:MM:SS, say 2:00:00, or D-HH:MM:SS$"):
        Walltime.of(text)


def test_the_next_round_is_like_the_longest_of_the_last() -> None:
    """One long round is forgotten after some others; a checkpoint counts once, however often it is written."""
    clock = Clock()
    walltime = Walltime(10_000, clock)
    walltime.begin(every=1)
    assert walltime.lasts(), "nothing is measured"
    for seconds in (1000.0, *[10.0] * LOOKED_AT):
        clock.now += seconds
        with walltime.writing():
            clock.now += 5
        assert walltime.lasts()
    clock.now = 1e9 + 10_000 - MORE * (10 + 5) - ENDING_S - 10
    with walltime.writing():
        pass
    walltime.begin(every=1)  # after a loss: what came before is not a round
    assert walltime.lasts()
    clock.now += 10.1
    assert not walltime.lasts()
    assert walltime.why == ": another round takes up to 47 s, and 46 s of --walltime are left"


def test_a_walltime_travels_to_another_process() -> None:
    there = pickle.loads(pickle.dumps(Walltime(3600.0)))
    there.begin(every=1)
    assert there.lasts()


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 2])
def test_the_last_round_ends_in_time_and_nothing_depends_on_it(
    workload: Callable[..., Workload], whole: Run, tmp_path: Path, rounds: int
) -> None:
    given, out = workload(), tmp_path / "run"
    assert not train(given, out, enough_for(rounds + 1) - 1)
    assert complete_rounds(out)[-1] == len(Run(out).rounds) == rounds
    said = (out / "log.txt").read_text().splitlines()[-1]
    assert said.endswith(f"stopped after round {rounds}: another round takes up to 1 min 36 s, and 1 min 35 s of "
                         "--walltime are left")  # fmt: skip
    assert train(given, out, math.inf)
    assert_same(whole, Run(out))


@pytest.mark.slow
def test_a_stop_for_lack_of_time_is_a_stop_by_a_signal(workload: Callable[..., Workload], tmp_path: Path) -> None:
    keys = "engine.checkpoint_every=0"
    train(workload(keys), tmp_path / "late", enough_for(2) - 1)
    with Simulation(workload(keys), tmp_path / "told") as simulation:
        assert not simulation.run(stop=lambda: len(simulation.validated("psnr")) == 1)
    late, told = Run(tmp_path / "late"), Run(tmp_path / "told")
    assert complete_rounds(late.path) == complete_rounds(told.path) == [1]
    assert tensors(late) == tensors(told)
    pd.testing.assert_frame_equal(unplaced(late.rounds), unplaced(told.rounds))


@pytest.mark.long
def test_a_walltime_shorter_than_a_round_is_said_and_every_session_goes_on(
    workload: Callable[..., Workload], whole: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, sessions = tmp_path / "run", list[bool]()
    with caplog.at_level(logging.WARNING, "fedsim"):
        while not sessions or not sessions[-1]:
            sessions.append(train(workload(), out, enough_for(1) - 1))
    assert sessions == [False, False, True]
    assert [record.message for record in caplog.records if "walltime" in record.message] == 2 * [
        "--walltime: is shorter than a round, which takes 1 min 36 s with its checkpoint; give it more"
    ]
    assert_same(whole, Run(out))


def test_a_run_whose_rounds_took_longer_is_warned_before_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    walltime = Walltime(600.0, Clock())
    with caplog.at_level(logging.WARNING, "fedsim"):
        walltime.begin(every=1, before=[10_000.0, *[700.0] * LOOKED_AT])
    assert walltime.lasts()
    assert caplog.messages == [
        "--walltime: a round of this run took 11 min 40 s, and 10 min 0 s are left; one begins, since otherwise the "
        "run would never go on"
    ]


@pytest.mark.long
def test_in_simulated_time_it_stops_where_no_client_is_trained_ahead(
    workload: Callable[..., Workload], tmp_path: Path
) -> None:
    """Three rounds are one piece here, from a checkpoint to the next."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(workload(*BUFFERED), whole, math.inf)
    assert not train(workload(*BUFFERED), out, enough_for(2, 3 * ROUND_S) - 1)
    assert complete_rounds(out) == [3]
    assert train(workload(*BUFFERED), out, enough_for(2, 3 * ROUND_S))
    assert_same(Run(whole), Run(out))


@pytest.mark.long
def test_a_point_of_a_study_is_stopped_and_resumed(workload: Callable[..., Workload], tmp_path: Path) -> None:
    point = workload("training.rounds=2"), tmp_path / "run", "test", lambda: False
    first, second = (run_point(*point, walltime=walltime) for walltime in (Walltime(1.0), Walltime(3600.0)))
    assert (first.stopped, first.pruned, first.error) == (True, False, "")
    assert (second.stopped, second.error) == (False, "")
    assert complete_rounds(tmp_path / "run")[-1] == 2
