"""Figures of a comparison. Each function draws one from tables and returns it; none is shown or saved."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsim.analysis.comparison import CONFIDENCE, MEAN, by_seed, too_few
from fedsim.mri.references import UNTRAINED
from fedsim.report.drawing import GREY, Named, grid, legend, log_counts, looks, titled
from fedsim.report.figures import PALETTE
from fedsim.report.wording import AXIS_LABELS

BASELINE = "single"
"""The method that trains alone, which a federated method must beat."""

_BETTER = {"psnr": "right", "ssim": "right", "nmse": "left"}


def comparison_figures(
    volumes: pd.DataFrame, curves: pd.DataFrame, tables: Mapping[str, pd.DataFrame], reference: str
) -> Named:
    """Every figure that a comparison's tables allow.

    Args:
        volumes: Rows of volumes.parquet.
        curves: Rows of curves.parquet.
        tables: Differences by quality, from `compare`.
        reference: Method that differences refer to.
    """
    yield "convergence", convergence(curves, reference)
    for quality, table in tables.items():
        if quality in _BETTER and table.loc[~table["method"].isin([reference, *UNTRAINED.values()]), "pairs"].any():
            yield f"differences-{quality}", differences(table, quality, reference)
    if volumes["regime"].nunique() > 1 and BASELINE in set(volumes["method"]) and volumes["method"].nunique() > 1:
        yield "scarcity", scarcity(volumes, reference)


def convergence(curves: pd.DataFrame, reference: str) -> Figure:
    """Validation PSNR by round, and by what a client has sent and received; mean and range over seeds.

    Args:
        curves: Rows of curves.parquet; one row of axes per regime.
        reference: Method that is drawn thicker.
    """
    regimes, look_of = list(curves["regime"].unique()), looks(list(curves["method"].unique()), reference)
    figure, axes = grid(len(regimes), 2, 9.2, 2.9)
    for (by_round, by_bytes), regime in zip(axes, regimes, strict=True):
        rows = curves[curves["regime"] == regime]
        for method, group in rows.groupby("method", sort=False):
            look, lines = look_of[str(method)], group.pivot_table(index="round", columns="seed", values="psnr").dropna()
            sent = (group["bytes"] / group["clients"] / 1e6).groupby(group["round"]).mean().reindex(lines.index)
            _band(by_round, lines.index.to_numpy(np.float64), lines, look)
            if sent.any():
                _band(by_bytes, sent.to_numpy(np.float64), lines, look)
            elif len(lines):  # it sends nothing: a level line at what it reaches
                by_bytes.axhline(lines.mean(axis=1).max(), color=look["color"], ls=look["ls"], lw=1, alpha=0.7)
        by_round.set(xlabel="round", ylabel=titled("validation PSNR [dB]", regime, regimes))
        by_round.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        by_bytes.set(xlabel="MB up and down so far, mean client (level line: nothing)")
    legend(figure, axes[0][0])
    return figure


def scarcity(volumes: pd.DataFrame, reference: str) -> Figure:
    """Gain over training alone against the number of training subjects; mean and standard deviation over seeds.

    Args:
        volumes: Rows of volumes.parquet, of several regimes, with the method `single`.
        reference: Method that is drawn thicker.
    """
    table = by_seed(volumes)
    psnr = table[table["site"] == MEAN].pivot_table(index=["regime", "seed"], columns="method", values="psnr")
    gains = psnr.drop(columns=[BASELINE, *UNTRAINED.values()], errors="ignore").sub(psnr[BASELINE], axis=0)
    alone = volumes[volumes["method"] == BASELINE]
    subjects = alone.groupby("regime")["train_subjects"].mean().sort_values()
    order = [str(name) for name in volumes["method"].unique() if name in gains]
    look_of = looks(list(volumes["method"].unique()), reference)
    figure, ((axis,),) = grid(1, 1, 6.4, 4.4)
    axis.axhline(0, color=GREY, lw=0.9)
    for place, method in enumerate(order):
        mean, spread = (
            getattr(gains[method].groupby("regime"), what)().reindex(subjects.index) for what in ("mean", "std")
        )
        shifted = subjects * 1.012 ** (place - (len(order) - 1) / 2)  # so that error bars stand side by side
        axis.errorbar(shifted, mean, yerr=spread, capsize=2, elinewidth=0.8, **look_of[method])
    log_counts(axis, subjects)
    axis.set(xlabel="training subjects of a client (mean)", ylabel=f"gain over {BASELINE} in test PSNR [dB]")
    legend(figure, axis, 4)
    return figure


def differences(table: pd.DataFrame, quality: str, reference: str) -> Figure:
    """Differences to the reference, paired by seed, with their intervals; markers are filled if a difference is shown.

    Args:
        table: Differences, from `compare`; one set of axes per regime.
        quality: psnr, ssim or nmse.
        reference: The method at 0.
    """
    rows = table[
        (table["site"] == MEAN) & ~table["method"].isin([reference, *UNTRAINED.values()]) & (table["pairs"] > 0)
    ]
    regimes = list(rows["regime"].unique())
    order = list(rows.groupby("method")["difference"].mean().sort_values().index)
    columns = min(3, len(regimes))
    lines = -(-len(regimes) // columns)
    figure, axes = grid(lines, columns, 3.1 * columns + 1.2, 0.22 * len(order) + 1.1)
    cells = [axis for line in axes for axis in line]
    for axis, regime in zip(cells, regimes, strict=False):
        _forest(axis, rows[rows["regime"] == regime].set_index("method").reindex(order))
        axis.set_title(titled("", regime, regimes), fontsize=9)
        axis.set_xlabel(f"test {AXIS_LABELS[quality]} − {reference}")
    for axis in cells[len(regimes) :]:
        axis.set_visible(False)
    side = f"to the {_BETTER[quality]} of 0 the method is better than {reference}"
    note = f"point: mean difference over seeds; {_bars_told(rows)}; {side}"
    figure.supxlabel(fill(note, int(16 * figure.get_figwidth())), fontsize=8)
    return figure


def _bars_told(rows: pd.DataFrame) -> str:
    """The meaning of the bars and of filled points."""
    if rows["low"].isna().all():
        return "one seed: no bars"
    bars = f"bar: its {100 * CONFIDENCE:g} % CI, not corrected for multiple comparisons"
    tests = int(rows["tests"].max())
    if not tests:
        return f"{bars}; all points empty: {too_few(rows['pairs'].max(), rows['subjects'].max())}"
    return f"{bars}; filled: p < {1 - CONFIDENCE:.2g} after Holm's correction for {tests}"


def _forest(axis: Axes, rows: pd.DataFrame) -> None:
    at = np.arange(len(rows), dtype=np.float64)
    axis.axvline(0, color=GREY, lw=0.9)
    reach = rows[["low", "high"]].sub(rows["difference"], axis=0).abs().to_numpy(np.float64).T
    axis.errorbar(
        rows["difference"],
        at,
        xerr=np.nan_to_num(reach),
        fmt="none",
        ecolor=PALETTE[0],
        elinewidth=1.6,
        capsize=4,
        capthick=1.6,
    )  # fmt: skip - caps, so that short bars show beside the point
    differs = rows["differs"].fillna(value=False).astype(bool).to_numpy()
    faces = [PALETTE[0] if one else "white" for one in differs]
    axis.scatter(rows["difference"], at, s=28, c=faces, edgecolors=PALETTE[0], linewidths=1.2, zorder=3)
    axis.set_yticks(at, list(rows.index))
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.grid(visible=False, axis="y")


def _band(axis: Axes, x: Any, lines: pd.DataFrame, look: dict[str, Any]) -> None:  # noqa: ANN401 - an array
    """Draw the mean over seeds and a band from the lowest to the highest."""
    axis.plot(x, lines.mean(axis=1), **{**look, "marker": look["marker"] if len(lines) <= 20 else ""})
    if lines.shape[1] > 1:
        alpha = 0.2 if look["lw"] > 2 else 0.07  # many bands overlap
        axis.fill_between(x, lines.min(axis=1), lines.max(axis=1), color=look["color"], alpha=alpha, lw=0)
