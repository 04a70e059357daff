"""What a method gains over another as sites grow apart: along each axis of a study that varies one at a time.

A gain is a difference between two methods of one seed, so whatever an axis does to both alike is not in it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fedsim.analysis.scores import LOWER_IS_BETTER, QUALITIES, along, axes_in, by_seed_at
from fedsim.analysis.slopes import FEWEST_VALUES, away_from, slopes
from fedsim.report.ablation_figures import cells_of, draw_along
from fedsim.report.drawing import GREY, Named, bars_told, legend, looks
from fedsim.report.findings import Differences, People, change, corrected
from fedsim.report.kinds.base import Found
from fedsim.report.wording import AXIS_LABELS, with_unit


def gains(points: pd.DataFrame, quality: str, against: str) -> pd.DataFrame:
    """The points of all methods but one, with the quality less that method's of the same regime and seed.

    Args:
        points: Rows of results.parquet.
        quality: psnr, ssim or nmse; a gain in nmse is how much lower it is.
        against: The method that is subtracted; its own points are left out.
    """
    keys = ["regime", "seed"]
    theirs = points.loc[points["method"] == against].set_index(keys)[quality].rename("theirs")
    own = points[points["method"] != against].join(theirs, on=keys, how="inner")
    sign = -1 if quality in LOWER_IS_BETTER else 1
    return own.assign(**{quality: sign * (own[quality] - own["theirs"])}).drop(columns="theirs")


def _compared(found: Found) -> list[str]:
    """Whom methods are to gain over: the reference, and training alone."""
    known = set(found.points["method"])
    return [method for method in dict.fromkeys((found.reference, found.alone)) if method in known]


def gain_figures(found: Found) -> Named:
    """Gains against every axis, over the reference and over training alone; none where axes are varied together."""
    for against in _compared(found) if found.base and found.points["method"].nunique() > 1 else ():
        for quality in QUALITIES:
            points, methods = gains(found.points, quality, against), list(found.points["method"].unique())
            figure, cells = cells_of(len(axes_in(points)))
            look_of = looks(methods, found.reference)
            for axis, key in zip(cells, axes_in(points), strict=True):
                axis.axhline(0, color=GREY, lw=0.9)
                draw_along(axis, along(points, key, found.base), key, quality, look_of)
                axis.set(xlabel=key, ylabel=f"gain over {against}, {AXIS_LABELS[quality]}")
            legend(figure, cells[0], note=bars_told(points["seed"].nunique()) + "; paired by seed")
            yield f"gain-over-{against}-{quality}", figure


def of_gains(found: Found, quality: str, people: People) -> Iterator[str]:
    """How each gain changes along each axis: its slope where values are numbers, else from the base to the last.

    p values are corrected for all methods, axes and methods gained over.
    """
    courses = [
        (over, _course(along(gains(found.points, quality, over), key, found.base), key, quality, found.base[key]))
        for over in _compared(found)
        for key in axes_in(found.points)
    ]
    apart: Differences = {
        (method, over, course.key): values for over, course in courses for method, values in course.changes.items()
    }
    p_values, tests = corrected(apart, people)
    for over, course in courses:
        for method, values in course.changes.items():
            told = change(values, quality, p_values[method, over, course.key], tests, people[method])
            ends = (f"{with_unit(gain, quality, '+')} at {at}" for at, gain in course.ends[method].items())
            yield f"{method} over {over} along {course.key}: {', '.join(ends)}; {course.told}: {told}"


class _Course(NamedTuple):
    """Gains along an axis, by method."""

    key: str
    told: str
    """What sums up the gains of a seed."""
    changes: "dict[str, pd.Series[float]]"
    """That, by seed."""
    ends: dict[str, dict[str, float]]
    """The mean gain over seeds at the base and at the last value."""


def _course(points: pd.DataFrame, key: str, quality: str, base: object) -> _Course:
    order: list[Any] = list(dict.fromkeys(points[key]))
    if len(order) < 2:
        return _Course(key, "", {}, {})
    sloped = _is_number(points[key]) and len(order) >= FEWEST_VALUES
    shown = points.assign(value=points[key] if sloped else points[key].map(str))
    first, last = (order[at] if sloped else str(order[at]) for at in (0, -1))
    tables = {str(method): by_seed_at(own, "value", quality) for method, own in shown.groupby("method", sort=False)}
    return _Course(
        key,
        f"per unit away from {_value(base)}" if sloped else "change",
        {name: slopes(own, away_from(float(str(base)))) if sloped else _at(own, last) - _at(own, first)
         for name, own in tables.items()},
        {name: {_value(at): float(_at(own, at).mean()) for at in (first, last)} for name, own in tables.items()},
    )  # fmt: skip


def _at(table: pd.DataFrame, value: object) -> "pd.Series[float]":
    """The gains of a value, by seed."""
    row: pd.Series[float] = table.loc[[value]].iloc[0]
    return row


def _is_number(values: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(values) and values.dtype != bool and bool(values.notna().all())


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
