"""The endpoint: estimates and tests by hand, from statsmodels and from scipy, and every outcome that they can have."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp, wilcoxon

from fedsim.analysis.comparison import MEAN, holm
from fedsim.analysis.endpoint import Outcome, equivalence, judged, outcome, worse_than_alone
from fedsim.analysis.mixed import mean_over_sites

SITES = {"A": 7, "B": 5, "C": 4}
"""Patients."""
GAINS = {"single": -0.3, "fedavg": 0.02, "fedmri": 0.0, "ditto": 0.4}
"""Mean difference to fedmri [dB]."""


def volumes(
    seeds: int = 3, patient: float = 0.1, seed: float = 0.05, regimes: tuple[str, ...] = ("all",), **within: bool
) -> pd.DataFrame:
    """Rows like those of volumes.parquet: patients deviate from the site's mean difference, and seeds from theirs."""
    draw = np.random.default_rng(1)
    people = [(site, f"s{number}") for site, count in SITES.items() for number in range(count)]
    deviation = {(p, m, r): draw.normal(0, patient) for p in people for m in GAINS for r in regimes}
    rows = [
        {
            "regime": regime, "method": method, "algorithm": method, "seed": number, "site": site, "subject": subject,
            "within_subject": within.get(site, False), "nmse": 0.1,
            "psnr": 30 + ord(site) + number + (method != "fedmri") * (
                gain + deviation[(site, subject), method, regime] + draw.normal(0, seed)),
        }
        for regime in regimes for method, gain in GAINS.items() for number in range(seeds) for site, subject in people
    ]  # fmt: skip
    return pd.DataFrame(rows)


def differences(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """site, subject, seed, difference of a method to fedmri."""
    own, theirs = (frame[frame["method"] == name] for name in (method, "fedmri"))
    keys = ["site", "subject", "seed"]
    both = own.merge(theirs, on=keys, suffixes=("", "_reference"))
    return both.assign(difference=both["psnr"] - both["psnr_reference"])[[*keys, "difference"]]


def of(table: pd.DataFrame, method: str) -> pd.Series:
    (row,) = (one for _, one in table.iterrows() if one["method"] == method)
    return row


# The mixed model


def by_hand(apart: pd.DataFrame) -> tuple[float, float]:
    """Mean over sites and its standard error from the patients' means: exact where all have as many seeds.

    Each site's mean has the variance s^2 / patients, with s^2 pooled over sites; the mean over sites is their mean.
    """
    means = apart.groupby(["site", "subject"])["difference"].mean()
    sites = means.groupby("site")
    pooled = ((means - sites.transform("mean")) ** 2).sum() / (len(means) - sites.ngroups)
    return float(sites.mean().mean()), float(np.sqrt((pooled / sites.size()).sum()) / sites.ngroups)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_mean_over_sites_by_hand(seeds: int) -> None:
    apart = differences(volumes(seeds), "ditto")
    mean, error = by_hand(apart)
    half = student.ppf(0.975, 16 - 3) * error
    found = mean_over_sites(apart, 0.95)
    assert found.freedom == 16 - 3
    assert found[:3] == pytest.approx((mean, mean - half, mean + half), rel=1e-4)
    small = mean_over_sites(apart.assign(difference=1e-5 * apart["difference"]), 0.95)
    assert small[:3] == pytest.approx([1e-5 * value for value in found[:3]], rel=1e-6), "in any unit"


@pytest.mark.slow
def test_the_mixed_model_is_statsmodels_own_from_a_formula() -> None:
    """With unlike numbers of seeds, where no formula by hand holds."""
    from statsmodels.formula.api import mixedlm  # noqa: PLC0415 - takes a second

    apart = differences(volumes(), "ditto")
    apart = apart[(apart["subject"] != "s0") | (apart["seed"] == 0)]
    who = apart["site"] + apart["subject"]
    scaled = apart.assign(difference=10 * apart["difference"])  # far from the boundary, of which statsmodels warns
    fit = mixedlm("difference ~ C(site, Sum)", scaled, groups=who).fit(reml=True)
    half = student.ppf(0.975, 16 - 3) * fit.bse_fe["Intercept"] / 10
    mean = fit.fe_params["Intercept"] / 10
    assert mean_over_sites(apart, 0.95)[:3] == pytest.approx((mean, mean - half, mean + half), rel=1e-3)


@pytest.mark.slow
def test_seeds_of_one_patient_are_not_patients() -> None:
    """Ten times the seeds, that hardly differ, make no narrower interval; nor do seeds that do not differ at all."""
    few, many, same = (
        mean_over_sites(differences(volumes(n, seed=s), "ditto"), 0.95) for n, s in ((2, 0.01), (20, 0.01), (20, 0))
    )
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.1)
    assert same.high - same.low == pytest.approx(few.high - few.low, rel=0.1)


def test_as_many_sites_as_patients_have_no_interval_and_equal_differences_a_point() -> None:
    lone = pd.DataFrame({"site": list("AB"), "subject": ["s", "s"], "difference": [0.1, 0.3]})
    found = mean_over_sites(lone, 0.95)
    assert (found.mean, found.freedom) == (pytest.approx(0.2), 0)
    assert np.isnan([found.low, found.high]).all()
    alike = pd.DataFrame({"site": list("AABB"), "subject": list("stst"), "difference": [0.1, 0.1, 0.3, 0.3]})
    assert mean_over_sites(alike, 0.95)[:3] == pytest.approx((0.2, 0.2, 0.2))


# Tests over patients


@pytest.mark.slow
def test_tests_are_scipys_over_patients_and_corrected_for_all_methods_and_regimes() -> None:
    frame = volumes(regimes=("all", "few"), patient=0.6)
    table = judged(frame, "psnr", "fedmri", 0.2)
    assert len(table) == 6
    raw = []
    for row in table.to_dict("records"):
        own = differences(frame[frame["regime"] == row["regime"]], row["method"])
        patients = own.groupby(["site", "subject"])["difference"].mean()
        above, below = (ttest_1samp(patients, end, alternative=side).pvalue for end, side in
                        ((-0.2, "greater"), (0.2, "less")))  # fmt: skip
        assert row["equivalent_p"] == pytest.approx(max(above, below))
        assert row["p"] == pytest.approx(wilcoxon(patients).pvalue)
        assert row["median"] == pytest.approx(patients.median())
        assert (row["patients"], row["sites"], row["tests"]) == (16, 3, 6)
        raw.append((row["p"], row["equivalent_p"]))
    assert list(table["p_holm"]) == pytest.approx(holm([p for p, _ in raw]))
    assert list(table["equivalent_p_holm"]) == pytest.approx(holm([p for _, p in raw]))


def test_equivalence_of_equal_differences() -> None:
    assert (equivalence([0.1] * 6, 0.2), equivalence([0.2] * 6, 0.2), equivalence([-0.3] * 6, 0.2)) == (0, 1, 1)


@pytest.mark.slow
def test_what_is_found_in_made_up_data_is_what_was_put_in() -> None:
    table = judged(volumes(), "psnr", "fedmri", 0.2)
    assert [of(table, method)["outcome"] for method in ("single", "fedavg", "ditto")] == [
        Outcome.WORSE, Outcome.EQUIVALENT, Outcome.BETTER,
    ]  # fmt: skip
    noisy = judged(volumes(patient=3), "psnr", "fedmri", 0.2)
    assert set(noisy["outcome"]) == {Outcome.NOT_SHOWN}


@pytest.mark.slow
def test_sites_within_subject_and_methods_without_a_pair_are_left_out() -> None:
    frame = volumes(A=True)
    frame = frame[(frame["method"] != "ditto") | (frame["seed"] == 0)]
    frame = frame[(frame["method"] != "fedmri") | (frame["seed"] > 0)]
    table = judged(frame, "psnr", "fedmri", 0.2)
    assert (of(table, "single")["patients"], of(table, "single")["sites"]) == (9, 2)
    assert (of(table, "ditto")["patients"], of(table, "ditto")["outcome"]) == (0, Outcome.TOO_FEW)


# Outcomes


def row(p: float, equivalent: float, low: float, high: float, median: float) -> dict[str, float]:
    return {"p_holm": p, "equivalent_p_holm": equivalent, "low": low, "high": high, "median": median}


CASES = [
    (row(0.01, 0.9, 0.3, 0.5, 0.4), Outcome.BETTER),
    (row(0.01, 0.9, -0.5, -0.3, -0.4), Outcome.WORSE),
    (row(0.01, 0.01, 0.05, 0.15, 0.1), Outcome.BETTER_WITHIN),
    (row(0.01, 0.01, -0.15, -0.05, -0.1), Outcome.WORSE_WITHIN),
    (row(0.5, 0.01, -0.1, 0.1, 0.0), Outcome.EQUIVALENT),
    (row(0.5, 0.01, 0.05, 0.1, 0.07), Outcome.EQUIVALENT),
    (row(0.5, 0.5, -0.3, 0.3, 0.1), Outcome.NOT_SHOWN),
    (row(float("nan"), float("nan"), 0.3, 0.5, 0.4), Outcome.TOO_FEW),
    # a test without the interval claims nothing, and neither does the interval without the test
    (row(0.01, 0.9, -0.1, 0.5, 0.4), Outcome.NOT_SHOWN),
    (row(0.06, 0.9, 0.3, 0.5, 0.4), Outcome.NOT_SHOWN),
    (row(0.01, 0.9, 0.3, 0.5, -0.1), Outcome.NOT_SHOWN),
    (row(0.5, 0.01, -0.3, 0.1, 0.0), Outcome.NOT_SHOWN),
    (row(0.5, 0.06, -0.1, 0.1, 0.0), Outcome.NOT_SHOWN),
    (row(0.01, 0.9, float("nan"), float("nan"), 0.4), Outcome.NOT_SHOWN),
]


@pytest.mark.parametrize(("found", "expected"), CASES)
def test_every_outcome(found: dict[str, float], expected: Outcome) -> None:
    assert outcome(found, "psnr", 0.2) == expected
    turned = {Outcome.BETTER: Outcome.WORSE, Outcome.BETTER_WITHIN: Outcome.WORSE_WITHIN}
    turned |= {after: before for before, after in turned.items()}
    assert outcome(found, "nmse", 0.2) == turned.get(expected, expected), "lower is better"


def test_the_cases_have_every_outcome() -> None:
    assert {expected for _, expected in CASES} == set(Outcome)


def test_no_claim_without_a_corrected_test_and_an_interval_on_one_side() -> None:
    for p, low, high in product((0.001, 0.2), (-0.5, -0.1, 0.1), (0.3, 0.7)):
        found = outcome(row(p, 1.0, low, high, 0.2), "psnr", 0.05)
        assert (found == Outcome.BETTER) == (p < 0.05 and low > 0)
        assert found in {Outcome.BETTER, Outcome.NOT_SHOWN}


# Floors


def test_patients_worse_than_training_alone_are_counted_site_by_site() -> None:
    frame = volumes(seeds=2, patient=0, seed=0, C=True)
    frame.loc[(frame["method"] == "fedmri") & (frame["subject"] == "s1") & (frame["seed"] == 0), "psnr"] -= 2
    table = worse_than_alone(frame, "psnr", "single")
    counts = {(one["method"], one["site"]): (one["worse"], one["patients"]) for one in table.to_dict("records")}
    assert counts["fedmri", "A"] == (1, 7), "the mean over its seeds is on the wrong side"
    assert counts["fedmri", MEAN] == (2, 12), "of the sites that count"
    assert counts["ditto", "B"] == (0, 5)
    assert ("single", "A") not in counts
    frame["nmse"] = -frame["psnr"]
    assert worse_than_alone(frame, "nmse", "single")["worse"].tolist() == table["worse"].tolist()
