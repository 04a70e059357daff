"""Serial shares and speed-ups against cases worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from fedsim.analysis.scaling_law import (
    STRONG,
    WEAK,
    ScalingLaw,
    amdahl,
    efficiencies,
    gustafson,
    predicted,
    serial_shares,
    speed_ups,
)


def test_amdahl_by_hand() -> None:
    """10 s on one worker, of which 2 s are serial: 2 + 8/2 = 6 s on two, 2 + 8/4 = 4 s on four."""
    assert amdahl([1, 2, 4], [10, 6, 4]) == pytest.approx(0.2)


def test_amdahl_of_two_measurements_is_exact() -> None:
    """T(2) / T(1) = s + (1 - s) / 2 = 0.55, so s = 0.1."""
    assert amdahl([1, 2], [100, 55]) == pytest.approx(0.1)


@pytest.mark.parametrize(("seconds", "share"), [([10, 10, 10], 1), ([10, 4, 1.5], 0), ([10, 12, 14], 1)])
def test_a_serial_share_stays_between_0_and_1(seconds: list[float], share: float) -> None:
    assert amdahl([1, 2, 4], seconds) == pytest.approx(share)


def test_amdahl_minimises_relative_errors() -> None:
    """Any other share, with the best T(1) for it, fits noisy times worse."""
    p, seconds = np.array([1.0, 2, 4, 8]), np.array([10.0, 6.4, 3.7, 3.3])

    def error(share: float) -> float:
        shape = (share + (1 - share) / p) / seconds
        return float(((shape * (shape.sum() / (shape**2).sum()) - 1) ** 2).sum())

    best = amdahl(p.tolist(), seconds.tolist())
    assert 0 < best < 1
    assert all(error(best) <= error(share) for share in np.linspace(0, 1, 101))


def test_gustafson_by_hand() -> None:
    """s = 0.25: S(2) = 2 - 0.25 = 1.75, S(5) = 5 - 1 = 4."""
    assert gustafson([1, 2, 5], [1, 1.75, 4]) == pytest.approx(0.25)
    assert gustafson([1, 2, 4], [1, 2.2, 4.5]) == 0, "no negative share"


def test_one_number_of_workers_has_no_share() -> None:
    assert math.isnan(amdahl([2], [3]))
    assert math.isnan(gustafson([1], [1]))


def points(unit: str, seconds: dict[int, list[float]]) -> pd.DataFrame:
    """Rows of one method: seconds of a round by number of workers, a value a seed."""
    return pd.DataFrame([
        {"regime": f"{unit}-{count}", unit: count, "method": "fedmri", "seed": seed, "round_seconds": value}
        for count, values in seconds.items() for seed, value in enumerate(values)
    ])  # fmt: skip


def test_each_seed_is_against_its_own_first() -> None:
    frame = points("cores", {2: [8, 16], 4: [4, 10]})
    strong = speed_ups(frame, STRONG, "round_seconds")
    assert strong.loc[4].tolist() == pytest.approx([2, 1.6])
    assert efficiencies(strong).loc[4].tolist() == pytest.approx([1, 0.8])
    weak = speed_ups(frame, WEAK, "round_seconds")
    assert weak.loc[4].tolist() == pytest.approx([4, 3.2]), "twice the work in half the time"


@pytest.mark.parametrize("law", [STRONG, WEAK])
def test_the_laws_are_fitted_seed_by_seed_from_the_fewest_workers(law: ScalingLaw) -> None:
    """Times that follow the law from 2 nodes on, with a share of their own for each seed, give these shares back."""
    shares, counts = [0.05, 0.3], np.array([2.0, 4, 16])
    gains = [predicted(law, share, counts / 2) for share in shares]
    work = 1 if law is STRONG else counts / 2
    times = np.stack([7 * work / gain for gain in gains], axis=1)
    frame = points("nodes", {int(count): list(row) for count, row in zip(counts, times, strict=True)})
    assert serial_shares(frame, law, "round_seconds") == pytest.approx(shares)
