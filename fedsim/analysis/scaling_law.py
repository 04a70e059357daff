"""Speed-up and efficiency of scaling measurements, and the serial share by Amdahl's and Gustafson's laws.

Workers are cores or nodes. All measures are relative to the smallest number of workers measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls

from fedsim.analysis.scores import by_seed_at


@dataclass(frozen=True)
class ScalingLaw:
    """How the time of a round depends on the number of workers."""

    author: str
    work_grows: bool
    """Whether the work grows in proportion to the workers."""


STRONG = ScalingLaw("Amdahl", work_grows=False)
"""The same work on more workers."""
WEAK = ScalingLaw("Gustafson", work_grows=True)
"""Work in proportion to the workers."""


def amdahl(workers: Sequence[float], seconds: Sequence[float]) -> float:
    """The serial share s in [0, 1] of T(p) = T(1) (s + (1 - s) / p), by least squares of relative errors.

    G. M. Amdahl, AFIPS Spring Joint Computer Conference 1967. With a = T(1) s and b = T(1) (1 - s), both not negative,
    T(p) = a + b / p is linear in them, and s = a / (a + b). NaN for fewer than two numbers of workers.

    Args:
        workers: p, relative to the smallest number that was measured.
        seconds: T(p) of the same work, positive.
    """
    p, measured = np.asarray(workers, np.float64), np.asarray(seconds, np.float64)
    if len(np.unique(p)) < 2:
        return np.nan
    (fixed, divided), _ = nnls(np.stack([1 / measured, 1 / (p * measured)], axis=1), np.ones_like(measured))
    return float(fixed / (fixed + divided))


def gustafson(workers: Sequence[float], speed_ups: Sequence[float]) -> float:
    """The serial share s in [0, 1] of the scaled speed-up S(p) = p - s (p - 1), by least squares.

    J. L. Gustafson, Communications of the ACM 31 (1988). The work grows with p, so S(p) = p T(1) / T(p). NaN if no
    p is above 1.

    Args:
        workers: p, relative to the smallest number that was measured.
        speed_ups: S(p).
    """
    p, measured = np.asarray(workers, np.float64), np.asarray(speed_ups, np.float64)
    more = float(((p - 1) ** 2).sum())
    return float(np.clip(((p - 1) * (p - measured)).sum() / more, 0, 1)) if more else np.nan


def predicted(law: ScalingLaw, share: float, workers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The speed-up on p workers (relative to the fewest) under Amdahl's law, for weak scaling Gustafson's."""
    return 1 / (share + (1 - share) / workers) if not law.work_grows else workers - share * (workers - 1)


def unit_of(points: pd.DataFrame) -> str:
    """The unit that a scaling study counts: `cores` or `nodes`."""
    return str(points["regime"].iloc[0]).partition("-")[0]


def speed_ups(points: pd.DataFrame, law: ScalingLaw, seconds: str) -> pd.DataFrame:
    """Speed-ups of one method, for each seed relative to its own time with the fewest workers.

    Args:
        points: Rows of results.parquet of one method.
        law: Strong: T(first) / T(p); weak: the scaled one, p / first T(first) / T(p).
        seconds: Column with the time of a round.

    Returns:
        One row per number of workers, one column per seed; empty if nothing was measured.
    """
    times = by_seed_at(points, unit_of(points), seconds)
    if times.empty:
        return times
    gains = times.rdiv(times.iloc[0], axis=1)
    return gains if not law.work_grows else gains.mul(times.index.to_series() / times.index[0], axis=0)


def efficiencies(gains: pd.DataFrame) -> pd.DataFrame:
    """Speed-ups divided by the ideal one, the number of workers relative to the fewest."""
    return gains.div(gains.index.to_series() / gains.index[0], axis=0) if len(gains) else gains


def serial_shares(points: pd.DataFrame, law: ScalingLaw, seconds: str) -> list[float]:
    """The serial share of one method, seed by seed: Amdahl's for strong scaling, Gustafson's for weak.

    Args:
        points: Rows of results.parquet of one method.
        law: Amdahl's or Gustafson's.
        seconds: Column with the time of a round.
    """
    if not law.work_grows:
        times = by_seed_at(points, unit_of(points), seconds)
        timed = [times[seed].dropna() for seed in times]
        shares = [amdahl(list(one.index / times.index[0]), one.tolist()) for one in timed]
    else:
        gains = speed_ups(points, law, seconds)
        known = [gains[seed].dropna() for seed in gains]
        shares = [gustafson(list(one.index / gains.index[0]), one.tolist()) for one in known]
    return [share for share in shares if np.isfinite(share)]
