"""Figures of a client-count study: quality, differences and costs against the number of clients N."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.analysis.comparison import ZERO_FILLED
from fedsim.analysis.scores import QUALITIES, by_seed_at, switches, with_costs
from fedsim.report.drawing import (
    GREY,
    Looks,
    Named,
    bars_told,
    beside,
    error_line,
    from_zero_or_log,
    grid,
    legend,
    log_counts,
    looks,
    span,
)
from fedsim.report.wording import AXIS_LABELS

_COSTS = {
    "round_seconds": "seconds per round (median)",
    "megabytes": "MB per client per round, up and down",
    "gigabytes": "memory of all processes, peak [GB]",
}
_N = "clients N"


def count_figures(points: pd.DataFrame, reference: str, note: str = "") -> Named:
    """Every figure of a client-count study.

    Args:
        points: Rows of results.parquet.
        reference: Method that differences refer to.
        note: Caveat about times.
    """
    for quality in QUALITIES:
        yield f"quality-{quality}", quality_by_count(points, quality, reference)
    yield "costs", costs_by_count(points, reference, note)


def quality_by_count(points: pd.DataFrame, quality: str, reference: str) -> Figure:
    """Test quality against N, zero-filled in grey, next to differences to the reference, paired by seed."""
    methods = list(points["method"].unique())
    look_of, apart = looks(methods, reference), reference in methods and len(methods) > 1
    figure, (axes,) = grid(1, 1 + apart, 9.2 if apart else 5.6, 3.2)
    zero_filled = points.groupby("clients")[f"zf_{quality}"].mean()
    axes[0].plot(zero_filled.index, zero_filled, color=GREY, lw=1.2, label=ZERO_FILLED)
    for place, (method, own) in enumerate(points.groupby("method", sort=False)):
        shift = beside(place, len(methods))
        error_line(axes[0], by_seed_at(own, "clients", quality), look_of[str(method)], shift, _moments(own))
    axes[0].set(xlabel=_N, ylabel=f"test {AXIS_LABELS[quality]}")
    if apart:
        _differences(axes[1], points, quality, reference, look_of)
    for axis in axes:
        log_counts(axis, points["clients"])
    legend(figure, axes[0], note=_note(points))
    return figure


def paired(points: pd.DataFrame, x: str, quality: str, method: str, reference: str) -> pd.DataFrame:
    """Differences of a method to the reference: one row per value of `x`, one column per common seed."""
    own, theirs = (by_seed_at(points[points["method"] == name], x, quality) for name in (method, reference))
    return (own - theirs).dropna(how="all").dropna(axis=1, how="all")


def _differences(axis: Axes, points: pd.DataFrame, quality: str, reference: str, look_of: Looks) -> None:
    axis.axhline(0, color=GREY, lw=0.9)
    for place, (method, own) in enumerate(points.groupby("method", sort=False)):
        if method != reference:
            table = paired(points, "clients", quality, str(method), reference)
            error_line(axis, table, look_of[str(method)], beside(place, len(look_of)), _moments(own))
    axis.set(xlabel=_N, ylabel=f"test {AXIS_LABELS[quality]} − {reference}, by seed")


def costs_by_count(points: pd.DataFrame, reference: str, note: str = "") -> Figure:
    """Time per round, bytes per client per round, and memory, against N."""
    known, look_of = with_costs(points), looks(list(points["method"].unique()), reference)
    figure, (axes,) = grid(1, len(_COSTS), 9.2, 3.0)
    for axis, (cost, label) in zip(axes, _COSTS.items(), strict=True):
        for place, (method, own) in enumerate(known.groupby("method", sort=False)):
            shift, table = beside(place, len(look_of)), by_seed_at(own, "clients", cost)
            error_line(axis, table, look_of[str(method)], shift, bar_of=span)  # times here are not Gaussian
        axis.set(xlabel=_N, ylabel=label)
        log_counts(axis, points["clients"])
        from_zero_or_log(axis, known[cost])
    bars = "bars: range over seeds" if points["seed"].nunique() > 1 else bars_told(1)
    legend(figure, axes[0], note="; ".join(filter(None, (bars, note))))
    return figure


def _moments(own: pd.DataFrame) -> set[float]:
    """Values of N at which a method that switches forms has moments instead of exact negatives."""
    return set(own.loc[own["negatives"] == "moments", "clients"]) if switches(own) else set()


def _note(points: pd.DataFrame) -> str:
    switched = switches(points)
    hollow = f"; empty markers: negatives by moments, filled: exact ({', '.join(switched)})" if switched else ""
    return bars_told(points["seed"].nunique()) + hollow
