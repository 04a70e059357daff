"""Figures of a client-count study: quality, differences and costs against the number of clients N."""

from itertools import chain

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.analysis.scores import QUALITIES, by_seed_at, switches, with_costs
from fedsim.mri.references import ZERO_FILLED
from fedsim.report.drawing import (
    GREY,
    Bar,
    Looks,
    Named,
    bars_told,
    beside,
    counts,
    error_line,
    from_zero_or_log,
    grid,
    legend,
    looks,
    span,
)
from fedsim.report.wording import AXIS_LABELS, CI

_COSTS = {
    "round_seconds": "seconds per round (median)",
    "milliseconds": "ms per client per round",
    "driver_gigabytes": "memory of the driver, peak [GB]",
    "up": "MB up per client per round",
    "down": "MB down per client per round",
    "gigabytes": "memory of all processes, peak [GB]",
}
_A_ROW = 3
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
        if _of_sites(points):
            table = own.set_index("clients")[[quality, f"{quality}_low", f"{quality}_high"]].sort_index()
            error_line(axes[0], table, look_of[str(method)], shift, _moments(own), lambda ends: Bar(*ends))
        else:
            error_line(axes[0], by_seed_at(own, "clients", quality), look_of[str(method)], shift, _moments(own))
    axes[0].set(xlabel=_N, ylabel=f"test {AXIS_LABELS[quality]}")
    if apart:
        _differences(axes[1], points, quality, reference, look_of)
    for axis in axes:
        counts(axis, points["clients"])
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
    """Time of a round and of a client in it, bytes per client per round, and memory, against N."""
    known, look_of = with_costs(points), looks(list(points["method"].unique()), reference)
    shown = {cost: label for cost, label in _COSTS.items() if known[cost].notna().any()}
    figure, rows = grid(-(-len(shown) // _A_ROW), _A_ROW, 9.2, 2.7)
    axes = [*chain(*rows)]
    for axis in axes[len(shown) :]:
        axis.remove()
    for axis, (cost, label) in zip(axes, shown.items(), strict=False):
        for place, (method, own) in enumerate(known.groupby("method", sort=False)):
            shift, table = beside(place, len(look_of)), by_seed_at(own, "clients", cost)
            error_line(axis, table, look_of[str(method)], shift, bar_of=span)  # times here are not Gaussian
        axis.set(xlabel=_N, ylabel=label)
        counts(axis, points["clients"])
        from_zero_or_log(axis, known[cost])
    bars = "bars: range over seeds" if points["seed"].nunique() > 1 else bars_told(1)
    legend(figure, axes[0], note="; ".join(filter(None, (bars, note))))
    return figure


def _moments(own: pd.DataFrame) -> set[float]:
    """Values of N at which a method that switches forms has moments instead of exact negatives."""
    return set(own.loc[own["negatives"] == "moments", "clients"]) if switches(own) else set()


def _of_sites(points: pd.DataFrame) -> bool:
    """Whether error bars are over the sites tested, because there is one seed."""
    return points["seed"].nunique() == 1 and "psnr_low" in points


def _note(points: pd.DataFrame) -> str:
    switched = switches(points)
    hollow = f"; empty markers: negatives by moments, filled: exact ({', '.join(switched)})" if switched else ""
    bars = f"one seed; bars: {CI} over the sites tested" if _of_sites(points) else bars_told(points["seed"].nunique())
    return bars + hollow
