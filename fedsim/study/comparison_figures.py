"""Figures of a comparison. Each function draws one from tables and returns it; nothing is shown or saved here.

Methods keep their colour, line style and marker in all figures; the reference is drawn thicker.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from fedsim.study.comparison import CONFIDENCE, MEAN, ZERO_FILLED, by_seed
from fedsim.study.figures import LEGEND, PALETTE, STYLE

BASELINE = "single"
"""Training alone: what a federated method must beat."""

_DASHES = ("-", "--", ":")
_MARKERS = "osD^v"
_GREY = "#808080"

Looks = dict[str, dict[str, Any]]
"""How each method is drawn."""


def comparison_figures(
    results: pd.DataFrame, curves: pd.DataFrame, table: pd.DataFrame, reference: str
) -> Iterator[tuple[str, Figure]]:
    """Every figure that a study's tables allow, with its name.

    Args:
        results: Rows of results.parquet.
        curves: Rows of curves.parquet.
        table: Differences in PSNR, from `compare`.
        reference: The method that differences are taken to.
    """
    yield "convergence", convergence(curves, reference)
    if table.loc[~table["method"].isin([reference, ZERO_FILLED]), "pairs"].any():
        yield "differences", differences(table, reference)
    if results["regime"].nunique() > 1 and BASELINE in set(results["method"]) and results["method"].nunique() > 1:
        yield "scarcity", scarcity(results, reference)


def convergence(curves: pd.DataFrame, reference: str) -> Figure:
    """Validation PSNR by round, and by what a client has sent and received; mean and range over seeds.

    Args:
        curves: Rows of curves.parquet; a row of axes a regime.
        reference: Drawn thicker.
    """
    regimes, looks = list(curves["regime"].unique()), _looks(list(curves["method"].unique()), reference)
    figure, axes = _grid(len(regimes), 2, 9.2, 2.9)
    for (by_round, by_bytes), regime in zip(axes, regimes, strict=True):
        rows = curves[curves["regime"] == regime]
        for method, group in rows.groupby("method", sort=False):
            look, lines = looks[str(method)], group.pivot_table(index="round", columns="seed", values="psnr").dropna()
            sent = (group["bytes"] / group["clients"] / 1e6).groupby(group["round"]).mean().reindex(lines.index)
            _band(by_round, lines.index.to_numpy(np.float64), lines, look)
            if sent.any():
                _band(by_bytes, sent.to_numpy(np.float64), lines, look)
            elif len(lines):  # it sends nothing: what it reaches, whatever others send
                by_bytes.axhline(lines.mean(axis=1).max(), color=look["color"], ls=look["ls"], lw=1, alpha=0.7)
        by_round.set(xlabel="round", ylabel=_titled("validation PSNR [dB]", regime, regimes))
        by_round.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        by_bytes.set(xlabel="MB up and down so far, mean client (level line: nothing)")
    _legend(figure, axes[0][0], 6)
    return figure


def scarcity(results: pd.DataFrame, reference: str) -> Figure:
    """Gain over training alone against the number of training subjects; mean and standard deviation over seeds.

    Args:
        results: Rows of results.parquet, of several regimes, with the method `single`.
        reference: Drawn thicker.
    """
    table = by_seed(results)
    psnr = table[table["site"] == MEAN].pivot_table(index=["regime", "seed"], columns="method", values="psnr")
    gains = psnr.drop(columns=[BASELINE, ZERO_FILLED]).sub(psnr[BASELINE], axis=0)
    alone = results[results["method"] == BASELINE]
    subjects = alone.groupby("regime")["train_subjects"].mean().sort_values()
    order = [str(name) for name in results["method"].unique() if name in gains]
    looks = _looks(list(results["method"].unique()), reference)
    figure, ((axis,),) = _grid(1, 1, 6.4, 4.4)
    axis.axhline(0, color=_GREY, lw=0.9)
    for place, method in enumerate(order):
        mean, spread = (
            getattr(gains[method].groupby("regime"), what)().reindex(subjects.index) for what in ("mean", "std")
        )
        shifted = subjects * 1.012 ** (place - (len(order) - 1) / 2)  # so that error bars stand side by side
        axis.errorbar(shifted, mean, yerr=spread, capsize=2, elinewidth=0.8, **looks[method])
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(sorted(subjects.unique())))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set(xlabel="training subjects of a client (mean)", ylabel=f"gain over {BASELINE} in test PSNR [dB]")
    _legend(figure, axis, 4)
    return figure


def differences(table: pd.DataFrame, reference: str) -> Figure:
    """Differences to the reference, paired by seed, with their intervals; filled where the interval excludes 0.

    Args:
        table: Differences in PSNR, from `compare`; axes a regime.
        reference: The method at 0.
    """
    rows = table[(table["site"] == MEAN) & ~table["method"].isin([reference, ZERO_FILLED]) & (table["pairs"] > 0)]
    regimes = list(rows["regime"].unique())
    order = list(rows.groupby("method")["difference"].mean().sort_values().index)
    columns = min(3, len(regimes))
    lines = -(-len(regimes) // columns)
    figure, axes = _grid(lines, columns, 3.1 * columns + 1.2, 0.22 * len(order) + 1.1)
    cells = [axis for line in axes for axis in line]
    for axis, regime in zip(cells, regimes, strict=False):
        _forest(axis, rows[rows["regime"] == regime].set_index("method").reindex(order))
        axis.set_title(_titled("", regime, regimes), fontsize=9)
        axis.set_xlabel(f"test PSNR − {reference} [dB]")
    for axis in cells[len(regimes) :]:
        axis.set_visible(False)
    bars = (
        f"bars: {100 * CONFIDENCE:g} % CI over seeds, each for itself"
        if rows["low"].notna().any()
        else "one seed: no CI"
    )
    figure.supxlabel(f"{bars}; to the right of 0 the method is better than {reference}", fontsize=8)
    return figure


def _forest(axis: Axes, rows: pd.DataFrame) -> None:
    at = np.arange(len(rows), dtype=np.float64)
    axis.axvline(0, color=_GREY, lw=0.9)
    axis.hlines(at, rows["low"], rows["high"], color=PALETTE[0], lw=1.4)
    differs = rows["differs"].fillna(value=False).astype(bool).to_numpy()
    faces = [PALETTE[0] if one else "white" for one in differs]
    axis.scatter(rows["difference"], at, s=28, c=faces, edgecolors=PALETTE[0], linewidths=1.2, zorder=3)
    axis.set_yticks(at, list(rows.index))
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.grid(visible=False, axis="y")


def _band(axis: Axes, x: Any, lines: pd.DataFrame, look: dict[str, Any]) -> None:  # noqa: ANN401 - an array
    """Mean over seeds and what lies between the lowest and the highest."""
    axis.plot(x, lines.mean(axis=1), **{**look, "marker": look["marker"] if len(lines) <= 20 else ""})
    if lines.shape[1] > 1:
        alpha = 0.2 if look["lw"] > 2 else 0.07  # many bands lie on each other
        axis.fill_between(x, lines.min(axis=1), lines.max(axis=1), color=look["color"], alpha=alpha, lw=0)


def _looks(methods: Sequence[str], reference: str) -> Looks:
    """Colour, dashes and marker by method: different for the first 21."""
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


def _grid(rows: int, columns: int, width: float, row_height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure [inch] with axes in rows, in the style of all figures."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, row_height * rows + 0.6), layout="constrained")
        return figure, [list(line) for line in figure.subplots(rows, columns, squeeze=False)]


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=min(columns, max(1, len(labels))), **LEGEND)


def _titled(label: str, regime: str, regimes: Sequence[str]) -> str:
    """A label that names its regime where there are several."""
    return "\n".join(part for part in (regime if len(regimes) > 1 else "", label) if part)
