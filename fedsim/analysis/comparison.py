"""Comparing methods: means over sites, spreads over seeds, and differences paired by seed and site.

A method's number for a seed and a site is the mean over the site's test volumes and clients. The mean over sites leaves
out sites with a single subject (marked †), unless all have only one. Every difference is between numbers of one seed,
so the split, the masks and the start that a seed draws are the same on both sides.

A difference counts as shown where a paired t test over seeds gives p < 0.05 after Holm's correction for all methods of
its regime, and only with enough seeds and test subjects to say anything at all. A second test, over the test subjects
of these seeds, stands beside it (`patients`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from fedsim.analysis.comparable import check_comparable, devices_of, terms_of
from fedsim.analysis.patients import FEWEST_SUBJECTS, NO_PATIENTS, drawn_in, over_patients, told_apart
from fedsim.analysis.scores import qualities_in, scores, volume_rows, volume_table
from fedsim.core.errors import InputError
from fedsim.core.text import counted
from fedsim.core.yaml import flat
from fedsim.engine.record.kept import files_of
from fedsim.engine.record.run_directory import Run
from fedsim.mri.references import UNTRAINED

Numbers = NDArray[np.float64]
MEAN = "mean over sites"
"""Value of the column `site` for the mean over sites; no site can have this name."""
CONFIDENCE = 0.95
_NO_SETTINGS = {"federation.root", "federation.cache", "federation.folds.test"}
FEWEST_SEEDS = 3
"""With fewer common seeds no difference counts as shown."""


class Interval(NamedTuple):
    """Mean of some numbers, their standard deviation, and the interval of Student's t for the mean."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def interval(values: Sequence[float] | Numbers) -> Interval:
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


def holm(p_values: Sequence[float] | Numbers) -> list[float]:
    """p values after the step-down correction of Holm (Scand. J. Stat. 6:65, 1979), in their order; NaN stays NaN.

    NaN stands for no test. statsmodels' own collects garbage at every call, half a second in a large process,
    and a study's tables need a hundred calls.
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
    """One row per regime, method, seed and site (and the mean over sites); zero-filled images are one more method, and
    so is every other reconstruction without training that the results have.

    Returns:
        regime, method, seed, site, within_subject, psnr, ssim, nmse, and others that the results have.
    """
    keys, qualities = ["regime", "method", "seed", "site"], qualities_in(results)
    columns = ["within_subject", *qualities]
    untrained = [_untrained(results, prefix, qualities) for prefix in UNTRAINED if f"{prefix}_psnr" in results]
    everyone = pd.concat([*untrained, results[[*keys, *columns]]], ignore_index=True)
    sites = everyone.groupby(keys, sort=False)[columns].mean().reset_index()
    sites["within_subject"] = sites["within_subject"] > 0
    mean = _mean_over_sites(counted_sites(sites), columns)
    return pd.concat([sites, mean.assign(site=MEAN, within_subject=mean["within_subject"] > 0)], ignore_index=True)


def _mean_over_sites(sites: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means over sites; none of a reconstruction without training that does not suit the data of all of them."""
    groups = sites.groupby(["regime", "method", "seed"], sort=False)
    mean, found = groups[list(columns)].mean().reset_index(), groups["site"].nunique().to_numpy()
    most = pd.Series(found).groupby([mean["regime"], mean["seed"]]).transform("max")
    kept: pd.DataFrame = mean[~mean["method"].isin(UNTRAINED.values()) | (found == most)]
    return kept


def _untrained(results: pd.DataFrame, prefix: str, qualities: Sequence[str]) -> pd.DataFrame:
    """The rows of volumes with the numbers of a reconstruction without training in place of the method's."""
    numbers = {quality: results.get(f"{prefix}_{quality}", np.nan) for quality in qualities}
    rows = results.assign(method=UNTRAINED[prefix], **numbers).dropna(subset="psnr")
    return rows[["regime", "method", "seed", "site", "within_subject", *qualities]]


def counted_sites(sites: pd.DataFrame) -> pd.DataFrame:
    """The rows, per site or volume, of sites that count in the mean over sites: not within subject, unless all are."""
    within = sites["within_subject"].astype(bool)
    everywhere = within.groupby(sites["regime"]).transform("all")
    return sites[~within | everywhere]


def with_mean_site(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of volumes, and again, under the site MEAN, those of sites that count, each subject with its site."""
    counted_rows = counted_sites(results.assign(within_subject=results["within_subject"].astype(bool)))
    subjects = counted_rows["site"] + "/" + counted_rows["subject"]
    return pd.concat([results, counted_rows.assign(site=MEAN, subject=subjects)], ignore_index=True)


def subjects_tested(results: pd.DataFrame) -> "pd.Series[int]":
    """Number of distinct test subjects over all seeds, by regime, site (MEAN: of its sites) and method."""
    keys = ["regime", "site", "method"]
    groups = told_apart(results).groupby(keys, sort=False)
    sites = groups.agg({"subject": "nunique", "within_subject": "any"}).reset_index()
    mean = (
        counted_sites(sites).groupby(["regime", "method"], sort=False)["subject"].sum().reset_index().assign(site=MEAN)
    )
    counts: pd.Series[int] = pd.concat([sites, mean]).set_index(keys)["subject"]
    return counts


def compare(results: pd.DataFrame, quality: str, reference: str) -> pd.DataFrame:
    """Spreads over seeds and differences to the reference, paired by seed.

    Args:
        results: Rows of volumes.parquet.
        quality: One of `qualities_in`.
        reference: Method that is subtracted.

    Returns:
        One row per regime, site (or MEAN) and method: regime, site, within_subject, drawn (whether the seed decides who
        the site's subjects are), method, seeds, mean, sd, pairs, subjects, difference, difference_sd, low, high
        (interval of this difference alone), p (of a paired t test; NaN if there is nothing to test, or too little),
        p_holm (corrected for all methods of the regime and site), tests (number of these methods), differs (whether
        p_holm shows a difference), patients (subjects in common), patient_median (of their differences), patient_p (of
        Wilcoxon's signed-rank test over them), patient_p_holm; of a study with folds also folds, their number.
    """
    table, people, rows = by_seed(results), subjects_tested(results).to_dict(), []
    of_patients = over_patients(with_mean_site(results), quality, reference)
    most, drawn = max(people.values()), {*results.loc[drawn_in(results), "site"]}
    within = table.groupby(["regime", "site"])["within_subject"].any().to_dict()
    for (regime, site), numbers in _numbers(table, quality).items():
        for method in numbers:
            own = interval(_known(numbers[method]))
            row = {"regime": regime, "site": site, "within_subject": within[regime, site], "drawn": site in drawn}
            row |= {"method": method, "seeds": own.n, "mean": own.mean, "sd": own.sd}
            subjects = min(people.get((regime, site, name), most) for name in (method, reference))
            row |= {"subjects": subjects} | _difference(numbers, method, reference, subjects)
            rows.append(row | of_patients.get((regime, site, method), NO_PATIENTS))
    found = pd.DataFrame(rows) if "fold" not in results else pd.DataFrame(rows).assign(folds=results["fold"].nunique())
    tests = found.groupby(["regime", "site"], sort=False)["p"].transform("count")
    found = found.assign(p_holm=_corrected(found, "p"), tests=tests, patient_p_holm=_corrected(found, "patient_p"))
    return found.assign(differs=found["p_holm"].map(shown))


def _numbers(table: pd.DataFrame, quality: str) -> dict[tuple[str, str], dict[str, Numbers]]:
    """The numbers of each method by seed, shape (seeds,), by regime and site; NaN for a seed that lacks it."""
    wide = table.set_index(["regime", "site", "method", "seed"])[quality].unstack("seed", sort=False).dropna(how="all")
    found: dict[tuple[str, str], dict[str, Numbers]] = {}
    for (regime, site, method), numbers in zip(wide.index, wide.to_numpy(), strict=True):
        found.setdefault((regime, site), {})[method] = numbers
    return found


def _known(numbers: Numbers) -> Numbers:
    return numbers[~np.isnan(numbers)]


def _corrected(found: pd.DataFrame, column: str) -> Numbers:
    """p values after Holm's correction for all methods of a regime and site."""
    p_values = found[column].to_numpy(np.float64, copy=True)
    for rows in found.groupby(["regime", "site"]).indices.values():
        p_values[rows] = holm(p_values[rows])
    return p_values


def _difference(numbers: Mapping[str, Numbers], method: str, reference: str, subjects: int) -> dict[str, Any]:
    known = reference in numbers and method != reference
    found = interval(_known(numbers[method] - numbers[reference]) if known else [])
    tested = method not in UNTRAINED.values() and not too_few(found.n, subjects)
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
    labels = labels_of(runs)
    seen: dict[tuple[str, int, int | None], str] = {}
    for name, run in runs.items():
        folds = run.workload.federation.folds
        other = seen.setdefault((labels[name], run.workload.seed, folds.test if folds else None), name)
        if other != name:
            raise InputError(f"{other} and {name}: are the same method with the same settings and seed; leave one out")
    rows = [row for name, run in runs.items() for row in volume_rows(run, "", "all", labels[name], {})]
    return volume_table(rows)


def labels_of(runs: Mapping[str, Run]) -> dict[str, str]:
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
    """Every setting that may change a result, but seed and fold; of files that runs keep copies of, the content."""
    content = json.loads(
        run.workload.model_dump_json(exclude={"name", "tags", "trackers", "seed", "engine", "provenance"})
    )
    of_keys = {key: value for key, value in flat(content) if key not in _NO_SETTINGS}
    copies = ((key, file) for key, file in files_of(run.workload).items() if file is not None and file.is_file())
    return of_keys | {key: f"{file.name} {sha256(file.read_bytes()).hexdigest()[:8]}" for key, file in copies}


def _devices(run: Run) -> dict[str, Any]:
    """Where clients trained, and whether GPUs gave the same bits every time: rounding depends on it, no more."""
    devices = devices_of(run)
    return {"device": devices, "engine.deterministic": run.workload.engine.deterministic or "cuda" not in devices}
