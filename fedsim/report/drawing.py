"""Shared by the figures of studies: how methods look, axes in rows, and means with error bars over seeds.

Methods keep their colour, line style and marker in all figures; the reference is drawn thicker.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from fedsim.analysis.comparison import CONFIDENCE, FEWEST_SEEDS, interval
from fedsim.report.figures import LEGEND, PALETTE, STYLE

GREY = "#808080"
_DASHES = ("-", "--", ":")
_MARKERS = "osD^v"
_WIDE = 10  # ratio of largest to smallest value beyond which an axis is logarithmic

Named = Iterator[tuple[str, Figure]]
"""Figures with their names."""
Looks = dict[str, dict[str, Any]]
"""How each method is drawn."""


class Bar(NamedTuple):
    """A mean over seeds and the ends of its error bar."""

    mean: float
    low: float
    high: float


def bar(values: Iterable[float]) -> Bar:
    """Mean and Student's t interval; for fewer than FEWEST_SEEDS values their range, for one value NaN."""
    known = [value for value in values if np.isfinite(value)]
    found = interval(known)
    if found.n >= FEWEST_SEEDS:
        return Bar(found.mean, found.low, found.high)
    return span(known)


def span(values: Iterable[float]) -> Bar:
    """Mean and range; NaN as range of a single value."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return Bar(np.nan, np.nan, np.nan)
    return Bar(float(np.mean(known)), *((min(known), max(known)) if len(known) > 1 else (np.nan, np.nan)))


def bars_told(seeds: int) -> str:
    """The meaning of a figure's error bars, for its caption."""
    if seeds >= FEWEST_SEEDS:
        return f"bars: {100 * CONFIDENCE:g} % CI over {seeds} seeds"
    return "bars: range of two seeds" if seeds > 1 else "one seed: no bars"


def looks(methods: Sequence[str], reference: str) -> Looks:
    """Colour, dashes and marker by method; distinct for the first 21."""
    return {
        str(method): {
            "color": PALETTE[index % len(PALETTE)],
            "ls": _DASHES[index // len(PALETTE) % len(_DASHES)],
            "marker": _MARKERS[index % len(_MARKERS)],
            "ms": 3.5,
            "lw": 2.4 if method == reference else 1.2,
            "label": str(method),
        }
        for index, method in enumerate(methods)
    }


def grid(rows: int, columns: int, width: float, row_height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure [inch] with axes in rows, in the style of all figures."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, row_height * rows + 0.6), layout="constrained")
        return figure, [list(line) for line in figure.subplots(rows, columns, squeeze=False)]


def legend(figure: Figure, axis: Axes, columns: int = 6, note: str = "") -> None:
    """One legend below all axes, with the entries of one of them, under a note on all of them."""
    handles, labels = axis.get_legend_handles_labels()
    title: dict[str, Any] = {"title": fill(note, int(15 * figure.get_figwidth())), "title_fontsize": 8} if note else {}
    figure.legend(handles, labels, ncols=min(columns, max(1, len(labels))), **title, **LEGEND)


def titled(label: str, regime: str, regimes: Sequence[str]) -> str:
    """A label that names its regime if there are several."""
    return "\n".join(part for part in (regime if len(regimes) > 1 else "", label) if part)


def beside(place: int, count: int) -> float:
    """Factors for x on a logarithmic axis that place the error bars of `count` lines side by side."""
    return float(1.015 ** (place - (count - 1) / 2))


def error_line(
    axis: Axes,
    table: pd.DataFrame,
    look: dict[str, Any],
    shift: float = 1.0,
    hollow: Collection[float] = (),
    bar_of: Callable[[Iterable[float]], Bar] = bar,
) -> None:
    """Means over the columns with error bars, as a line.

    Args:
        axis: Where to draw.
        table: One row per value of x, one column per seed.
        look: Colour, dashes and marker.
        shift: Factor for x.
        hollow: Values of x with empty markers.
        bar_of: Computes mean and ends of the bar.
    """
    if table.empty:
        return
    bars = [bar_of(row) for row in table.to_numpy(np.float64)]
    means, x = np.array([one.mean for one in bars]), table.index.to_numpy(np.float64)
    reach = np.abs([[one.mean - one.low for one in bars], [one.high - one.mean for one in bars]])
    axis.errorbar(shift * x, means, yerr=np.nan_to_num(reach), capsize=2.5, elinewidth=0.9, **look)
    empty = np.isin(x, list(hollow))
    if empty.any():
        axis.plot(
            shift * x[empty], means[empty], look["marker"], ms=look["ms"], mfc="white", mec=look["color"], zorder=4
        )


def value_ticks(axis: Any, values: Iterable[float]) -> None:  # noqa: ANN401 - an x or a y axis
    """The values themselves as the ticks of an x or y axis, and no others."""
    axis.set_major_locator(FixedLocator(sorted(set(values))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value, 2):,.12g}"))


def log_counts(axis: Axes, values: Iterable[float]) -> None:
    """A logarithmic x axis with the counts themselves as ticks."""
    axis.set_xscale("log")
    value_ticks(axis.xaxis, values)
    axis.margins(x=0.08)


def counts(axis: Axes, values: "pd.Series[int]") -> None:
    """An x axis with the counts themselves as ticks; logarithmic if they span more than a decade."""
    if values.max() > _WIDE * values.min():
        log_counts(axis, values)
    else:
        value_ticks(axis.xaxis, values)
        axis.margins(x=0.08)


def from_zero_or_log(axis: Axes, values: "pd.Series[float]") -> None:
    """A y axis from 0, or a logarithmic one if the values are far apart."""
    known = values[values > 0]
    if len(known) and known.max() > _WIDE * known.min():
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_ylim(bottom=0, top=1.12 * known.max() if len(known) else 1)
