"""The numbers of a comparison in words: spreads and intervals as text, captions, and differences in sentences."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from fedsim.analysis.comparison import CONFIDENCE, MEAN, shown, too_few
from fedsim.analysis.scores import LOWER_IS_BETTER
from fedsim.core.text import counted
from fedsim.mri.references import UNTRAINED

AXIS_LABELS = {
    "psnr": "PSNR [dB]", "ssim": "SSIM", "nmse": "NMSE", "hfen": "HFEN", "roi_psnr": "PSNR in boxes [dB]",
    "roi_ssim": "SSIM in boxes", "roi_nmse": "NMSE in boxes",
}  # fmt: skip
CI = f"{CONFIDENCE:.0%} CI".replace("%", " %")

P_SUBJECTS = "p, subjects"
"""Head of the column with p values over test subjects."""
WILCOXON = "Wilcoxon's signed-rank test"

_UNITS = {"psnr": " dB", "roi_psnr": " dB"}
_FORMS = {"psnr": ".2f", "roi_psnr": ".2f"}
_SMALLEST_P = 0.001  # that is printed exactly

Row = Mapping[Hashable, Any]
"""One row of the table from `compare`."""


def number(value: float, quality: str, sign: str = "") -> str:
    """A quality as text; empty for NaN."""
    return f"{value:{sign}{_FORMS.get(quality, '.4f')}}" if math.isfinite(value) else ""


def range_text(values: "pd.Series[float]", form: str = "g") -> str:
    """The lowest and the highest of some numbers, or the one that they all are."""
    low, high = format(values.min(), form), format(values.max(), form)
    return low if low == high else f"{low} to {high}"


def with_unit(value: float, quality: str, sign: str = "") -> str:
    """A quality as text, in its unit."""
    return number(value, quality, sign) + _UNITS.get(quality, "")


def spread(mean: float, sd: float, quality: str) -> str:
    """A mean with its standard deviation, if any."""
    return number(mean, quality) + (f" ± {number(sd, quality)}" if math.isfinite(sd) else "")


def confidence(low: float, high: float, quality: str) -> str:
    """An interval; empty without one."""
    return f"[{number(low, quality, '+')}, {number(high, quality, '+')}]" if math.isfinite(low) else ""


def chance(p: float) -> str:
    """A corrected p value, starred if it shows a difference; empty if nothing was tested."""
    if not math.isfinite(p):
        return ""
    return ("< 0.001" if p < _SMALLEST_P else f"{p:.3f}") + " *" * shown(p)


def verdict(p: float, tests: int, seeds: int, subjects: int) -> str:
    """Whether a difference is shown, by its corrected p value, or why not."""
    reason = too_few(seeds, subjects)
    if reason:
        return f"not shown: {reason}"
    judged = f"p {chance(p).removesuffix(' *')} after Holm's correction for {counted(tests, 'comparison')}"
    return judged if shown(p) else f"not shown: {judged}"


def means(table: pd.DataFrame, quality: str) -> pd.DataFrame:
    """The rows of the mean over sites, the best first."""
    rows = table[table["site"] == MEAN]
    return rows.sort_values("mean", ascending=quality in LOWER_IS_BETTER, kind="stable")


def sentences(table: pd.DataFrame, quality: str, reference: str) -> list[str]:
    """The differences of one regime in words: a line for each method that differs, and one for the rest."""
    rows = means(table, quality)
    rows = rows[~rows["method"].isin([reference, *UNTRAINED.values()])]
    lines = [_sentence(row, quality, reference) for row in rows.to_dict("records") if row["differs"]]
    others: dict[str, list[str]] = {}
    for row in rows[~rows["differs"]].to_dict("records"):
        others.setdefault(_not_shown(row), []).append(row["method"])
    for reason, methods in others.items():
        everyone = len(methods) == len(rows)
        who = "no method is shown" if everyone else "not shown"
        names = "" if everyone else f": {', '.join(methods)}"
        lines.append(f"{who} to differ from {reference} ({reason}){names}")
    over_patients = rows[rows["patient_p_holm"].map(shown)].to_dict("records")
    return [*lines, *(_patient_sentence(row, quality, reference) for row in over_patients)]


def _not_shown(row: Row) -> str:
    """Why a difference cannot be claimed."""
    if not row["pairs"]:
        return "no seed in common"
    judged = f"p > {1 - CONFIDENCE:.2g} after Holm's correction for {counted(row['tests'], 'comparison')}"
    return too_few(row["pairs"], row["subjects"]) or judged


def _patient_sentence(row: Row, quality: str, reference: str) -> str:
    """A difference that shows over test subjects, whatever seeds say."""
    first, second = _order(row["method"], reference, row["patient_median"], quality)
    by = with_unit(abs(row["patient_median"]), quality)
    p = chance(row["patient_p_holm"]).removesuffix(" *")
    judged = f"p {p} after Holm's correction ({WILCOXON})"
    return f"over {row['patients']} test subjects, {first} leads {second} by {by} (median), {judged}"


def _order(method: str, reference: str, difference: float, quality: str) -> tuple[str, str]:
    """The better of two methods first."""
    better = (difference > 0) != (quality in LOWER_IS_BETTER)
    return (method, reference) if better else (reference, method)


def _sentence(row: Row, quality: str, reference: str) -> str:
    first, second = _order(row["method"], reference, row["difference"], quality)
    low, high = (number(end, quality) for end in sorted((abs(row["low"]), abs(row["high"]))))
    by = with_unit(abs(row["difference"]), quality)
    found = verdict(row["p_holm"], row["tests"], row["pairs"], row["subjects"])
    return f"{first} leads {second} by {by}, {CI} [{low}, {high}], {row['pairs']} seeds, {found}"


def caption(table: pd.DataFrame, regime: str) -> str:
    """The caption of a regime's table."""
    rows = table[(table["regime"] == regime) & (table["site"] != MEAN)]
    within = list(rows.loc[rows["within_subject"], "site"].unique())
    parts = [
        "Mean ± standard deviation over n seeds; differences are paired by seed.",
        _seeds_told(rows),
    ]
    of_mean = table[(table["regime"] == regime) & (table["site"] == MEAN)]
    parts.append(_tests_told(of_mean))
    if of_mean["patient_p"].notna().any():
        parts.append(f"{P_SUBJECTS}: {WILCOXON} over test subjects, means over seeds, corrected likewise.")
    if (rows.groupby("site")["seeds"].nunique() > 1).any():
        parts.append("Methods have different numbers of seeds: trust differences, not means.")
    if len(within) == rows["site"].nunique():
        parts.append("† All sites are within subject.")
    elif within:
        parts.append(f"† Within subject, and not in the mean over sites: {', '.join(within)}.")
    return " ".join(parts)


def _seeds_told(rows: pd.DataFrame) -> str:
    """What seeds vary, and therefore what a spread over them is not."""
    drawn, sites = rows.loc[rows["drawn"], "site"].nunique(), rows["site"].nunique()
    same, other, varied = "Seeds divide the same subjects anew", "Every seed draws other subjects", "splits and starts"
    if "folds" in rows:
        once, varied = f"once, in {rows['folds'].max()} folds", "starts and inner divisions"
        same, other = f"Every seed tests every subject {once}", f"{other} and tests each {once}"
    if drawn == sites:
        return f"{other}: the spread is over subjects, {varied}."
    some = f" At {drawn} of {sites} sites every seed draws other subjects." if drawn else ""
    return f"{same}: the spread is over {varied}, not over patients.{some}"


def _tests_told(rows: pd.DataFrame) -> str:
    """The meaning of a regime's intervals, p values and stars, or why there are none."""
    if rows["seeds"].max() == 1:
        return "One seed: no spread, no interval and no test."
    if rows["pairs"].max() < 2:
        return "Fewer than two seeds in common: no interval and no test."
    intervals = f"{CI}: Student's t over seeds, each difference for itself, not corrected."
    tests = int(rows["tests"].max())
    if not tests:
        paired = rows[rows["pairs"] > 0]
        return f"{intervals} No test: {too_few(paired['pairs'].max(), paired['subjects'].max())}."
    corrected = f"p: paired t test over seeds after Holm's correction for {counted(tests, 'comparison')}"
    return f"{intervals} {corrected}; * p < {1 - CONFIDENCE:.2g}."
