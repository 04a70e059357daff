"""Figures of an ablation: quality against the values of each axis, with the other axes averaged over."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.analysis.scores import QUALITIES, axes_in, by_seed_at, complete
from fedsim.report.drawing import Looks, Named, bars_told, error_line, grid, legend
from fedsim.report.drawing import looks as looks_of
from fedsim.report.wording import AXIS_LABELS

_MOST_ACROSS = 3


def ablation_figures(points: pd.DataFrame, reference: str) -> Named:
    """Every figure of an ablation.

    Args:
        points: Rows of results.parquet.
        reference: Method that is drawn thicker.
    """
    for quality in QUALITIES:
        yield f"quality-{quality}", quality_by_axis(points, quality, reference)


def quality_by_axis(points: pd.DataFrame, quality: str, reference: str) -> Figure:
    """Test quality against each axis: lines for numbers, markers side by side for anything else."""
    keys, whole = axes_in(points), complete(points)
    columns = min(_MOST_ACROSS, len(keys))
    rows = -(-len(keys) // columns)
    figure, lines = grid(rows, columns, max(4.6, 3.1 * columns), 2.9)
    cells = [axis for line in lines for axis in line]
    looks = looks_of(list(points["method"].unique()), reference)
    for axis, key in zip(cells, keys, strict=False):
        draw = _lines if pd.api.types.is_numeric_dtype(points[key]) and points[key].dtype != bool else _markers
        draw(axis, whole, key, quality, looks)
        axis.set(xlabel=key, ylabel=f"test {AXIS_LABELS[quality]}")
    for axis in cells[len(keys) :]:
        axis.set_visible(False)
    others = "; a point is the mean over the other axes" if len(keys) > 1 else ""
    zero_filled = f"; zero-filled: {points[f'zf_{quality}'].mean():.4g}"
    legend(figure, cells[0], note=bars_told(whole["seed"].nunique()) + others + zero_filled)
    return figure


def _lines(axis: Axes, points: pd.DataFrame, key: str, quality: str, looks: Looks) -> None:
    """Positions of the values, evenly spaced: ablation values are rarely even, and often include 0."""
    values = sorted(points[key].dropna().unique())
    for place, (method, own) in enumerate(points.groupby("method", sort=False)):
        table = by_seed_at(own, key, quality)
        shift = 0.03 * (place - (len(looks) - 1) / 2)  # so that error bars stand side by side
        error_line(axis, table.set_axis([values.index(value) + shift for value in table.index]), looks[str(method)])
    axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axis.margins(x=0.1)


def _markers(axis: Axes, points: pd.DataFrame, key: str, quality: str, looks: Looks) -> None:
    """A group of markers per value, one per method; bars would have to begin at 0 and hide the differences."""
    named = points.assign(**{key: points[key].map(str)})
    values = list(named[key].unique())
    for place, (method, own) in enumerate(named.groupby("method", sort=False)):
        table = by_seed_at(own, key, quality)
        shift = 0.12 * (place - (len(looks) - 1) / 2)
        error_line(axis, table.set_axis([values.index(value) + shift for value in table.index]),
                   {**looks[str(method)], "ls": ""})  # fmt: skip
    axis.set_xticks(range(len(values)), values)
    axis.set_xlim(-0.5, len(values) - 0.5)
