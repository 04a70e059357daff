"""A study's endpoint: what may be said of each method against the reference, patient by patient.

A patient's difference is between means over the patient's volumes and clients of one seed. Three things are computed
of these: their mean over sites by a mixed model (`mixed`), whether they are symmetric about 0 (Wilcoxon's signed-rank
test over the patients' means), and whether their mean lies within the margin (two one-sided t tests, Schuirmann,
J. Pharmacokin. Biopharm. 15:657, 1987). Both tests are corrected by Holm for all methods and regimes of the study.

Nothing is claimed on a test alone: a difference also needs the mixed model's interval on one side of 0, and equivalence
the whole interval within the margin.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from fedsim.analysis.comparison import CONFIDENCE, counted_sites, holm, shown, with_mean_site
from fedsim.analysis.mixed import mean_over_sites
from fedsim.analysis.patients import FEWEST_SUBJECTS, PATIENT, differences_by_patient, differences_by_seed, signed_rank
from fedsim.analysis.scores import LOWER_IS_BETTER


class Outcome(StrEnum):
    """What the data allow to be said of a method against the reference."""

    BETTER = "better"
    WORSE = "worse"
    BETTER_WITHIN = "better, within the margin"
    WORSE_WITHIN = "worse, within the margin"
    EQUIVALENT = "equivalent"
    NOT_SHOWN = "not shown"
    TOO_FEW = "too few patients"


def judged(results: pd.DataFrame, quality: str, reference: str, margin: float) -> pd.DataFrame:
    """Every method against the reference.

    Args:
        results: Rows of volumes.parquet.
        quality: One of its qualities.
        reference: Method that is subtracted.
        margin: Largest difference that does not matter, in the quality's unit.

    Returns:
        One row per regime and method: regime, method, patients, sites, mean, low, high (mean over sites of the
        difference and its interval, from the mixed model), median (of the patients' differences), p, p_holm
        (Wilcoxon's signed-rank test), equivalent_p, equivalent_p_holm (the larger of two one-sided t tests), tests
        (number of comparisons corrected for) and outcome.
    """
    apart = differences_by_seed(counted_sites(results), quality, reference)
    rows = [
        {"regime": regime, "method": method, **_measured(own.rename(columns={method: "difference"}), margin)}
        for regime, of_regime in apart.groupby("regime", sort=False)
        for method in of_regime.columns[len(PATIENT) + 1 :]
        for own in [of_regime[["site", "subject", method]].dropna()]
    ]
    found = pd.DataFrame(rows)
    if found.empty:
        return found
    found = found.assign(p_holm=holm(found["p"].tolist()), equivalent_p_holm=holm(found["equivalent_p"].tolist()))
    found = found.assign(tests=int(found["p"].count()))
    return found.assign(outcome=[outcome(row, quality, margin) for row in found.to_dict("records")])


def _measured(differences: pd.DataFrame, margin: float) -> dict[str, Any]:
    """What is known of one method before any correction."""
    estimate = mean_over_sites(differences, CONFIDENCE)
    patients = differences.groupby(["site", "subject"])["difference"].mean()
    enough = len(patients) >= FEWEST_SUBJECTS and estimate.freedom >= 1
    return {
        "patients": len(patients), "sites": differences["site"].nunique(), "mean": estimate.mean,
        "low": estimate.low, "high": estimate.high, "median": float(patients.median()) if len(patients) else np.nan,
        "p": signed_rank(patients.tolist()) if enough else np.nan,
        "equivalent_p": equivalence(patients.tolist(), margin) if enough else np.nan,
    }  # fmt: skip


def equivalence(differences: list[float], margin: float) -> float:
    """The larger p of two one-sided t tests: that the mean is below the margin, and above the margin's negative."""
    from statsmodels.stats.weightstats import DescrStatsW  # noqa: PLC0415 - takes a second

    numbers = np.asarray(differences, np.float64)
    if not np.ptp(numbers):
        return float(abs(numbers[0]) >= margin)
    return float(DescrStatsW(numbers).ttost_mean(-margin, margin)[0])


def outcome(row: Mapping[Any, Any], quality: str, margin: float) -> Outcome:
    """What may be said, given a row of `judged` with both corrected p values."""
    if not np.isfinite(row["p_holm"]):
        return Outcome.TOO_FEW
    within = shown(row["equivalent_p_holm"]) and -margin < row["low"] and row["high"] < margin
    above, below = row["low"] > 0 and row["median"] > 0, row["high"] < 0 and row["median"] < 0
    if not (shown(row["p_holm"]) and (above or below)):
        return Outcome.EQUIVALENT if within else Outcome.NOT_SHOWN
    if above != (quality in LOWER_IS_BETTER):
        return Outcome.BETTER_WITHIN if within else Outcome.BETTER
    return Outcome.WORSE_WITHIN if within else Outcome.WORSE


def worse_than_alone(results: pd.DataFrame, quality: str, alone: str) -> pd.DataFrame:
    """How many patients of each site a method serves worse than training alone does.

    Args:
        results: Rows of volumes.parquet.
        quality: One of its qualities.
        alone: The method that trains each site alone.

    Returns:
        One row per regime, method and site (or MEAN): regime, method, site, patients, worse (patients whose difference,
        a mean over seeds, is on the wrong side of 0).
    """
    apart = differences_by_patient(with_mean_site(results), quality, alone)
    pairs = apart.melt(id_vars=PATIENT, var_name="method", value_name="difference").dropna(subset="difference")
    wrong = (pairs["difference"] > 0) if quality in LOWER_IS_BETTER else (pairs["difference"] < 0)
    groups = pairs.assign(worse=wrong).groupby(["regime", "method", "site"], sort=False)["worse"]
    return groups.agg(patients="count", worse="sum").reset_index()
