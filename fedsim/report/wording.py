"""What the numbers of a comparison say: spreads and intervals as text, captions, and differences in sentences."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from fedsim.study.comparison import CONFIDENCE, MEAN, ZERO_FILLED

LOWER_IS_BETTER = {"nmse"}
CI = f"{CONFIDENCE:.0%} CI".replace("%", " %")

_UNITS = {"psnr": " dB", "ssim": "", "nmse": ""}
_FORMS = {"psnr": ".2f", "ssim": ".4f", "nmse": ".4f"}

Row = Mapping[Hashable, Any]
"""One row of what `compare` returns."""


def number(value: float, quality: str, sign: str = "") -> str:
    """A quality as text; empty for NaN."""
    return f"{value:{sign}{_FORMS[quality]}}" if math.isfinite(value) else ""


def with_unit(value: float, quality: str, sign: str = "") -> str:
    """A quality as text, in its unit."""
    return number(value, quality, sign) + _UNITS[quality]


def spread(mean: float, sd: float, quality: str) -> str:
    """A mean and its standard deviation, where there is one."""
    return number(mean, quality) + (f" ± {number(sd, quality)}" if math.isfinite(sd) else "")


def confidence(low: float, high: float, quality: str) -> str:
    """An interval, starred where it excludes 0; empty where there is none."""
    if not math.isfinite(low):
        return ""
    return f"[{number(low, quality, '+')}, {number(high, quality, '+')}]" + " *" * excludes_zero(low, high)


def excludes_zero(low: float, high: float) -> bool:
    """Whether 0 lies outside an interval; False for none."""
    return bool(low > 0 or high < 0)


def means(table: pd.DataFrame, quality: str) -> pd.DataFrame:
    """The rows of the mean over sites, the best first."""
    rows = table[table["site"] == MEAN]
    return rows.sort_values("mean", ascending=quality in LOWER_IS_BETTER, kind="stable")


def sentences(table: pd.DataFrame, quality: str, reference: str) -> list[str]:
    """What the differences of one regime say, in words: a line for each method that differs, and one for the rest."""
    rows = means(table, quality)
    rows = rows[~rows["method"].isin([reference, ZERO_FILLED])]
    lines = [_sentence(row, quality, reference) for row in rows.to_dict("records") if row["differs"]]
    unpaired = rows.loc[rows["pairs"] == 0, "method"]
    single = rows.loc[rows["pairs"] == 1, "method"]
    alike = rows.loc[(rows["pairs"] > 1) & ~rows["differs"], "method"]
    if len(alike):
        everyone = len(alike) == len(rows)
        who = f"no method differs from {reference}" if everyone else f"no difference from {reference}"
        lines.append(f"{who} beyond the spread over seeds" + (f": {', '.join(alike)}" if not everyone else ""))
    if len(single):
        lines.append(f"one seed in common with {reference}, so differences without an interval: {', '.join(single)}")
    if len(unpaired):
        lines.append(f"no seed in common with {reference}: {', '.join(unpaired)}")
    return lines


def _sentence(row: Row, quality: str, reference: str) -> str:
    better = (row["difference"] > 0) != (quality in LOWER_IS_BETTER)
    first, second = (row["method"], reference) if better else (reference, row["method"])
    low, high = (number(end, quality) for end in sorted((abs(row["low"]), abs(row["high"]))))
    by = with_unit(abs(row["difference"]), quality)
    return f"{first} leads {second} by {by}, {CI} [{low}, {high}], {row['pairs']} seeds"


def caption(table: pd.DataFrame, regime: str) -> str:
    """What the numbers of a regime must not be read without."""
    rows = table[(table["regime"] == regime) & (table["site"] != MEAN)]
    within = list(rows.loc[rows["within_subject"], "site"].unique())
    parts = [
        "Mean ± standard deviation over n seeds; differences are paired by seed.",
        "Seeds divide the same subjects anew: the spread is over splits and starts, not over patients.",
    ]
    if rows["pairs"].max() > 1:
        parts.append(
            "Intervals: Student's t over seeds, each for itself, not corrected for the number of methods; * excludes 0."
        )
    elif rows["seeds"].max() == 1:
        parts.append("One seed: no spread and no interval.")
    else:
        parts.append("Fewer than two seeds in common: no interval.")
    if rows["seeds"].nunique() > 1:
        parts.append("Methods have different numbers of seeds: trust differences, not means.")
    if len(within) == rows["site"].nunique():
        parts.append("† All sites are within subject.")
    elif within:
        parts.append(f"† Within subject, and not in the mean over sites: {', '.join(within)}.")
    return " ".join(parts)
