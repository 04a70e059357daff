"""Whether FedMRI's contrastive term switches itself on and off from round to round, and validation PSNR with it.

A quantity's kink at a round is how far it lies above the mean of the rounds before and after. Where the term
oscillates, kinks alternate in sign. The correlation of the ratio's kinks with those of PSNR says whether quality swings
with the term; the mean size of PSNR's kinks, by how much.
"""

from typing import Any

import numpy as np
import pandas as pd

from fedsim.analysis.curves import BOUND, by_run
from fedsim.engine.record.term import RATIO, judge

_FEWEST = 3
"""Kinks that a correlation needs."""


def oscillations(curves: pd.DataFrame) -> pd.DataFrame:
    """What the ratio and validation PSNR did from round to round, means over seeds and folds.

    Args:
        curves: Rows of curves.parquet.

    Returns:
        One row per regime and method: regime, method, runs, kink (mean size of PSNR's kinks [dB], from round 2 on), and
        of methods that note the ratio, else NaN: alternating (runs in which it alternates), saturated (rounds above 0.9
        of the bound, mean), rounds (with a ratio, mean), correlation (of kinks; NaN where too few rounds were scored).
    """
    keys = by_run(curves)
    rows = [
        {"regime": own["regime"].iloc[0], "method": own["method"].iloc[0], **_of_run(own)}
        for _, own in curves.groupby(keys, sort=False)
    ]
    columns = ["regime", "method", "alternating", "saturated", "rounds", "correlation", "kink"]
    groups = pd.DataFrame(rows, columns=columns).groupby(["regime", "method"], sort=False)
    sums = {"alternating": ("alternating", _sum_of_known), "runs": ("kink", "size")}
    means = {name: (name, "mean") for name in ("saturated", "rounds", "correlation", "kink")}
    return groups.agg(**sums, **means).reset_index()


def _sum_of_known(values: "pd.Series[float]") -> float:
    return float(values.sum(min_count=1))


def _of_run(own: pd.DataFrame) -> dict[str, Any]:
    """The same of one run."""
    rows = own.sort_values("round").set_index("round")
    kinks = _kinks(rows["psnr"][rows.index >= 2])  # the term begins in round 2
    found = {"kink": float(kinks.abs().mean())}
    if RATIO not in rows or rows[RATIO].isna().all():
        return found
    known = rows.dropna(subset=[RATIO, BOUND])
    judged = judge(known[RATIO].tolist(), known[BOUND].tolist())
    of_ratio = _kinks(known[RATIO] / known[BOUND])
    return found | {
        "alternating": float(judged.alternates), "saturated": float(sum(judged.saturated)),
        "rounds": float(len(known)), "correlation": _correlation(of_ratio, kinks),
    }  # fmt: skip


def _kinks(values: "pd.Series[float]") -> "pd.Series[float]":
    """How far each value lies above the mean of its neighbours, by round; only where all three rounds have one."""
    return (values - (values.shift(1) + values.shift(-1)) / 2).dropna()


def _correlation(one: "pd.Series[float]", other: "pd.Series[float]") -> float:
    """Pearson's, over the rounds that both have; NaN for too few, or where one of them does not vary."""
    both = pd.concat([one, other], axis=1, join="inner").to_numpy(np.float64)
    if len(both) < _FEWEST or not np.ptp(both, axis=0).all():
        return np.nan
    return float(np.corrcoef(both.T)[0, 1])
