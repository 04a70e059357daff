"""Figures of an ablation: quality against the values of each axis, the others averaged over or at the base."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.analysis.scores import QUALITIES, along, axes_in, by_seed_at
from fedsim.report.drawing import Looks, Named, bars_told, error_line, grid, legend
from fedsim.report.drawing import looks as looks_of
from fedsim.report.wording import AXIS_LABELS

_MOST_ACROSS = 3


def ablation_figures(points: pd.DataFrame, reference: str, base: Mapping[str, Any]) -> Named:
    """Every figure of an ablation.

    Args:
        points: Rows of results.parquet.
        reference: Method that is drawn thicker.
        base: Where one axis is varied at a time, the values at which the others stand; else empty.
    """
    for quality in QUALITIES:
        yield f"quality-{quality}", quality_by_axis(points, quality, reference, base)


def quality_by_axis(points: pd.DataFrame, quality: str, reference: str, base: Mapping[str, Any]) -> Figure:
    """Test quality against each axis: lines for numbers, markers side by side for anything else."""
    keys = axes_in(points)
    figure, cells = cells_of(len(keys))
    looks = looks_of(list(points["method"].unique()), reference)
    whole = {key: along(points, key, base) for key in keys}
    for axis, key in zip(cells, keys, strict=True):
        draw_along(axis, whole[key], key, quality, looks)
        axis.set(xlabel=key, ylabel=f"test {AXIS_LABELS[quality]}")
    others = "the others stand at the base" if base else "a point is the mean over the other axes"
    zero_filled = f"; zero-filled: {points[f'zf_{quality}'].mean():.4g}" * (not base)
    note = bars_told(whole[keys[0]]["seed"].nunique()) + f"; {others}" * (len(keys) > 1) + zero_filled
    legend(figure, cells[0], note=note)
    return figure


def cells_of(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with axes for some keys, in rows."""
    columns = min(_MOST_ACROSS, count)
    figure, lines = grid(-(-count // columns), columns, max(4.6, 3.1 * columns), 2.9)
    cells = [axis for line in lines for axis in line]
    for axis in cells[count:]:
        axis.set_visible(False)
    return figure, cells[:count]


def draw_along(axis: Axes, points: pd.DataFrame, key: str, quality: str, looks: Looks) -> None:
    """A column of the points against a key: lines for numbers, markers side by side for anything else."""
    draw = _lines if pd.api.types.is_numeric_dtype(points[key]) and points[key].dtype != bool else _markers
    draw(axis, points, key, quality, looks)


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
