"""What is drawn for clients and their turns has the distributions of docs/time.md."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedsim.engine.clock.conditions import Conditions
from fedsim.engine.clock.windows import ALWAYS, Shifts
from fedsim.engine.federation import assemble
from fedsim.workload.reading import load_workload

from .conftest import FEDERATION

MANY = 400
HOSPITALS = (
    FEDERATION
    + """
    - {{name: P, count: {many}, source: {{format: phantom, subjects: 4, slices: 5, size: 32}}}}
training: {{rounds: 9, cohort: 2}}
time: {{latency_s: 2}}
"""
)
Make = Callable[..., Conditions]


@pytest.fixture
def make(tmp_path: Path, cache: Path) -> Make:
    """Makes the conditions of many hospitals of 10 training slices; turns send 1 Mbit and receive 2 Mbit."""
    (tmp_path / "many.yaml").write_text(HOSPITALS.format(cache=cache, many=MANY))

    def make(*overrides: str) -> Conditions:
        workload = load_workload(tmp_path / "many.yaml", overrides).settled()
        return Conditions(workload, assemble(workload).clients, 125_000, 250_000)

    return make


def assert_drawn(values: list[float], distribution: str, *arguments: float) -> None:
    """That values can be of a distribution, by a test of Kolmogorov and Smirnov; for one seed, so it never varies."""
    assert len({*values}) == len(values)
    assert stats.kstest(values, distribution, arguments).pvalue > 0.01


@pytest.mark.parametrize("amount", [("compute.samples_per_s", 10), ("uplink_mbps", 1), ("downlink_mbps", 2)])
def test_speeds_of_clients(make: Make, amount: tuple[str, float]) -> None:
    key, work = amount
    ranged, drawn = make(f"time.{key}=[2, 50]"), make(f"time.{key}={{lognormal: {{median: 3, sigma: 0.7}}}}")
    logs = [
        [math.log(work / (conditions.of(place).seconds - 2)) for place in range(MANY)] for conditions in (ranged, drawn)
    ]
    assert_drawn(logs[0], "uniform", math.log(2), math.log(25))
    assert_drawn(logs[1], "norm", math.log(3), 0.7)


def test_speeds_are_drawn_each_for_itself(make: Make) -> None:
    keys = [f"time.{key}=[1, 9]" for key in ("compute.samples_per_s", "uplink_mbps", "downlink_mbps")]
    drawn = [[conditions.of(place).seconds - 2 for place in range(MANY)] for conditions in map(make, keys)]
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.15
    together = make(*keys)
    assert [together.of(place).seconds - 2 for place in range(MANY)] == pytest.approx(np.sum(drawn, 0).tolist())
    assert make(keys[0], "seed=6").of(0).seconds != make(keys[0]).of(0).seconds


def test_jitter_is_log_normal_around_a_turn_of_2_s(make: Make) -> None:
    conditions = make("time.jitter=0.3")
    turns = [conditions.end(place, 100, number) for place in range(20) for number in range(1, 21)]
    assert {outcome for _, outcome in turns} == {"trained"}
    assert_drawn([math.log((end - 100) / 2) for end, _ in turns], "norm", 0, 0.3)


def test_a_client_that_drops_out_does_so_at_any_point(make: Make) -> None:
    conditions = make("time.dropout=0.25")
    turns = [conditions.end(place, 100, number) for place in range(MANY) for number in (1, 2, 3, 4)]
    ends = [end for end, outcome in turns if outcome == "dropped"]
    assert stats.binomtest(len(ends), len(turns), 0.25).pvalue > 0.01
    assert_drawn(ends, "uniform", 100, 2)
    assert {end for end, outcome in turns if outcome == "trained"} == {102}


def test_shifts_are_a_share_of_the_period(make: Make) -> None:
    """Each begins anywhere in it; a day, unless the workload says otherwise."""
    alike, ranged = (
        [windows for place in range(MANY) if isinstance(windows := conditions.of(place).windows, Shifts)]
        for conditions in (make("time.available={share: 0.3, period_h: 2}"), make("time.available.share=[0.2, 0.6]"))
    )
    assert len(alike) == len(ranged) == MANY
    assert {(one.period, one.length) for one in alike} == {(7200, 2160)}
    assert_drawn([one.phase for one in alike], "uniform", 0, 7200)
    assert {one.period for one in ranged} == {86_400}
    assert_drawn([one.length / 86_400 for one in ranged], "uniform", 0.2, 0.4)
    assert make().of(0).windows == ALWAYS
