"""Differences between methods over patients: Wilcoxon's signed-rank test, paired by test subject.

A subject's difference is the mean over seeds of differences of one seed, each between means over the subject's volumes
and clients. Seeds of one study share most of its subjects, so a test over seeds says nothing about other patients; this
one takes the models of these seeds as given. A person at two sites counts at each. Phantoms are drawn from the seed:
equal names under two seeds are two people.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

PATIENT = ["regime", "site", "subject"]
"""Columns that tell test subjects apart."""
FEWEST_SUBJECTS = 5
"""With fewer test subjects no difference counts as shown."""
NO_PATIENTS: dict[str, Any] = {"patients": 0, "patient_median": np.nan, "patient_p": np.nan}
"""What `over_patients` says where there is no pair."""


def over_patients(results: pd.DataFrame, quality: str, reference: str) -> dict[tuple[Hashable, ...], dict[str, Any]]:
    """The test over patients of every method against the reference, by regime, site and method.

    Args:
        results: Rows of volumes.parquet.
        quality: One of its qualities.
        reference: Method that is subtracted.
    """
    apart = differences_by_patient(results, quality, reference)
    found: dict[tuple[Hashable, ...], dict[str, Any]] = {}
    for (regime, site), group in apart.groupby(["regime", "site"], sort=False):
        numbers = group.iloc[:, len(PATIENT) :]
        for method, column in zip(numbers, numbers.to_numpy().T, strict=True):
            own = column[~np.isnan(column)]
            median = float(np.median(own)) if len(own) else np.nan
            found[regime, site, method] = {
                "patients": len(own), "patient_median": median, "patient_p": signed_rank(own)
            }  # fmt: skip
    return found


def differences_by_patient(results: pd.DataFrame, quality: str, reference: str) -> pd.DataFrame:
    """The difference of every method to the reference, for each test subject.

    Returns:
        regime, site, subject, and a column for each other method; NaN where no seed has both.
    """
    apart = differences_by_seed(results, quality, reference)
    return apart.drop(columns="seed").groupby(PATIENT, sort=False).mean().reset_index()


def differences_by_seed(results: pd.DataFrame, quality: str, reference: str) -> pd.DataFrame:
    """The difference of every method to the reference, for each test subject and seed.

    Returns:
        regime, site, subject, seed, and a column for each other method; NaN where the seed does not have both.
    """
    keys = [*PATIENT, "seed"]
    means = told_apart(results).groupby([*keys, "method"], sort=False)[quality].mean().unstack("method", sort=False)
    own = means.get(reference, pd.Series(np.nan, means.index))
    return means.drop(columns=reference, errors="ignore").sub(own, axis="index").reset_index()


def told_apart(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of volumes, with another name for each person: subjects that the seed draws are named with it."""
    named = results["subject"] + " of seed " + results["seed"].astype(str)
    return results.assign(subject=results["subject"].mask(drawn_in(results), named))


def drawn_in(results: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the seed decides who the subject is, by row of volumes; False in an older table, which does not say."""
    return results.get("drawn", pd.Series(data=False, index=results.index)).astype(bool)


def signed_rank(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that differences are symmetric about 0; NaN for too few subjects.

    Exact for up to 50 subjects without ties (Wilcoxon, Biometrics Bulletin 1:80, 1945).
    """
    numbers = np.asarray(differences, np.float64)
    if len(numbers) < FEWEST_SUBJECTS:
        return np.nan
    return float(wilcoxon(numbers).pvalue) if numbers.any() else 1.0
