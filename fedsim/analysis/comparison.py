"""Comparing methods: means over sites, spreads over seeds, and differences paired by seed and site.

A method's number for a seed and a site is the mean over the site's test volumes and clients. The mean over sites leaves
out sites with a single subject (marked †), unless all have only one. Every difference is between numbers of one seed,
so the split, the masks and the start that a seed draws are the same on both sides.

A difference counts as shown where a paired t test over seeds gives p < 0.05 after Holm's correction for all methods of
its regime, and only with enough seeds and test subjects to say anything at all.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from fedsim.analysis.comparable import check_comparable, devices_of, terms_of
from fedsim.analysis.scores import QUALITIES, VOLUME_COLUMNS, scores, volume_rows
from fedsim.core.errors import InputError
from fedsim.core.text import counted
from fedsim.engine.record.run_directory import Run, flat

ZERO_FILLED = "zero-filled"
MEAN = "mean over sites"
"""Value of the column `site` for the mean over sites; no site can have this name."""
CONFIDENCE = 0.95
FEWEST_SEEDS, FEWEST_SUBJECTS = 3, 5
"""With fewer common seeds, or fewer test subjects in all, no difference counts as shown."""


class Interval(NamedTuple):
    """Mean of some numbers, their standard deviation, and the interval of Student's t for the mean."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Mean, sample standard deviation and confidence interval; NaN where there are too few values for them."""
    numbers = np.asarray(values, np.float64)
    n, mean = len(numbers), float(numbers.mean()) if len(numbers) else np.nan
    if n < 2:
        return Interval(n, mean, np.nan, np.nan, np.nan)
    sd = float(numbers.std(ddof=1))
    half = _quantile(n - 1) * sd / np.sqrt(n)
    return Interval(n, mean, sd, mean - half, mean + half)


@cache
def _quantile(freedom: int) -> float:
    """Half width of the interval in standard errors, by degrees of freedom."""
    return float(student.ppf((1 + CONFIDENCE) / 2, freedom))


def p_value(found: Interval) -> float:
    """Two-sided p of Student's t test that the mean is 0; NaN without an interval."""
    if found.n < 2:
        return np.nan
    if not found.sd:
        return float(found.mean == 0)
    return float(2 * student.sf(abs(found.mean) * np.sqrt(found.n) / found.sd, found.n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values after the step-down correction of Holm (Scand. J. Stat. 6:65, 1979), in their order; NaN stays NaN.

    NaN stands for no test. scipy lacks this correction; statsmodels has it, a heavy dependency for five lines.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return list(corrected)


def shown(p: float) -> bool:
    """Whether a corrected p value shows a difference; False for NaN."""
    return bool(p < 1 - CONFIDENCE)


def too_few(seeds: int, subjects: int) -> str:
    """Why there are too few seeds or test subjects to show a difference; empty if there are enough."""
    for count, fewest, what in ((seeds, FEWEST_SEEDS, "seed"), (subjects, FEWEST_SUBJECTS, "test subject")):
        if count < fewest:
            return f"only {counted(count, what)}; at least {fewest} are needed"
    return ""


def by_seed(results: pd.DataFrame) -> pd.DataFrame:
    """One row per regime, method, seed and site (and the mean over sites); zero-filled images are one more method.

    Returns:
        regime, method, seed, site, within_subject, psnr, ssim, nmse.
    """
    keys = ["regime", "method", "seed", "site"]
    ours = results.groupby(keys, sort=False)[["within_subject", *QUALITIES]].mean().reset_index()
    columns = {f"zf_{quality}": quality for quality in QUALITIES}
    zero_filled = results.assign(method=ZERO_FILLED).drop(columns=list(QUALITIES)).rename(columns=columns)
    theirs = zero_filled.groupby(keys, sort=False)[["within_subject", *QUALITIES]].mean().reset_index()
    sites = pd.concat([theirs, ours], ignore_index=True)
    sites["within_subject"] = sites["within_subject"] > 0
    mean = _counted(sites).groupby(keys[:3], sort=False)[["within_subject", *QUALITIES]].mean().reset_index()
    return pd.concat([sites, mean.assign(site=MEAN, within_subject=mean["within_subject"] > 0)], ignore_index=True)


def _counted(sites: pd.DataFrame) -> pd.DataFrame:
    """The rows of sites that count in the mean over sites."""
    everywhere = sites.groupby("regime")["within_subject"].transform("all")
    return sites[~sites["within_subject"] | everywhere]


def subjects_tested(results: pd.DataFrame) -> "pd.Series[int]":
    """Number of distinct test subjects over all seeds, by regime, site (MEAN: of its sites) and method."""
    keys = ["regime", "site", "method"]
    sites = results.groupby(keys, sort=False).agg({"subject": "nunique", "within_subject": "any"}).reset_index()
    mean = _counted(sites).groupby(["regime", "method"], sort=False)["subject"].sum().reset_index().assign(site=MEAN)
    counts: pd.Series[int] = pd.concat([sites, mean]).set_index(keys)["subject"]
    return counts


def compare(results: pd.DataFrame, quality: str, reference: str) -> pd.DataFrame:
    """Spreads over seeds and differences to the reference, paired by seed.

    Args:
        results: Rows of volumes.parquet.
        quality: psnr, ssim or nmse.
        reference: Method that is subtracted.

    Returns:
        One row per regime, site (or MEAN) and method: regime, site, within_subject, method, seeds, mean, sd, pairs,
        subjects, difference, difference_sd, low, high (interval of this difference alone), p (of a paired t test; NaN
        if there is nothing to test, or too little), p_holm (corrected for all methods of the regime and site), tests
        (number of these methods), differs (whether p_holm shows a difference).
    """
    table, people, rows = by_seed(results), subjects_tested(results).to_dict(), []
    most = max(people.values())
    for (regime, site), group in table.groupby(["regime", "site"], sort=False):
        numbers = group.set_index(["seed", "method"])[quality].unstack(sort=False).dropna(axis="columns", how="all")
        within = bool(group["within_subject"].any())
        for method in numbers.columns:
            own = interval(numbers[method].dropna().tolist())
            row = {"regime": regime, "site": site, "within_subject": within}
            row |= {"method": method, "seeds": own.n, "mean": own.mean, "sd": own.sd}
            subjects = min(people.get((regime, site, name), most) for name in (method, reference))
            rows.append(row | {"subjects": subjects} | _difference(numbers, str(method), reference, subjects))
    found = pd.DataFrame(rows)
    p_values = found.groupby(["regime", "site"], sort=False)["p"]
    corrected = p_values.transform(lambda values: pd.Series(holm(values.tolist()), values.index))
    found = found.assign(p_holm=corrected, tests=p_values.transform("count"))
    return found.assign(differs=found["p_holm"].map(shown))


def _difference(numbers: pd.DataFrame, method: str, reference: str, subjects: int) -> dict[str, Any]:
    known = reference in numbers and method != reference
    pairs = (numbers[method] - numbers[reference]).dropna().tolist() if known else []
    found = interval(pairs)
    tested = method != ZERO_FILLED and not too_few(found.n, subjects)
    return {
        "pairs": found.n, "difference": found.mean, "difference_sd": found.sd, "low": found.low, "high": found.high,
        "p": p_value(found) if tested else np.nan,
    }  # fmt: skip


def results_of(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Rows like those of volumes.parquet from plain runs; runs of one method are labelled with differing settings.

    Args:
        runs: By a name for messages.

    Raises:
        InputError: a run has no test scores, the runs cannot be compared, or two are the same.
    """
    for name, run in runs.items():
        if not len(scores(run, "test")):
            raise InputError(f"{name}: has no test scores of its best round; use `fedsim evaluate {name}`")
    check_comparable({name: terms_of(run) for name, run in runs.items()})
    labels = _labels(runs)
    seen: dict[tuple[str, int], str] = {}
    for name, run in runs.items():
        other = seen.setdefault((labels[name], run.workload.seed), name)
        if other != name:
            raise InputError(f"{other} and {name}: are the same method with the same settings and seed; leave one out")
    rows = [row for name, run in runs.items() for row in volume_rows(run, "", "all", labels[name], {})]
    return pd.DataFrame(rows, columns=list(VOLUME_COLUMNS))


def _labels(runs: Mapping[str, Run]) -> dict[str, str]:
    """The algorithm of each run, with those settings that differ between the runs of one algorithm."""
    settings = {name: _settings(run) for name, run in runs.items()}
    labels = {}
    for name, run in runs.items():
        group = [settings[other] for other in runs if settings[other]["algorithm.name"] == run.workload.algorithm.name]
        shown = ", ".join(f"{key}={settings[name].get(key)}" for key in _differing(group))
        labels[name] = f"{run.workload.algorithm.name} ({shown})" if shown else run.workload.algorithm.name
    return labels


def other_differences(runs: Iterable[Run]) -> list[str]:
    """What besides the method's own settings is not the same in all runs: settings, and where clients trained."""
    found = [_settings(run) | _devices(run) for run in runs]
    return [key for key in _differing(found) if not key.startswith("algorithm.")]


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for one in settings for key in one})
    return [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]


def _settings(run: Run) -> dict[str, Any]:
    """Every setting that may change a result, but the seed."""
    content = json.loads(run.workload.model_dump_json(exclude={"name", "tags", "seed", "engine", "provenance"}))
    return {key: value for key, value in flat(content) if key not in {"federation.root", "federation.cache"}}


def _devices(run: Run) -> dict[str, Any]:
    """Where clients trained, and whether GPUs gave the same bits every time: rounding depends on it, no more."""
    devices = devices_of(run)
    return {"device": devices, "engine.deterministic": run.workload.engine.deterministic or "cuda" not in devices}
