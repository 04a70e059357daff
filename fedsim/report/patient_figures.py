"""The figure of patient-level differences: every test subject of every site, method by method."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.analysis.comparison import counted_sites
from fedsim.analysis.patients import PATIENT, differences_by_patient
from fedsim.analysis.scores import LOWER_IS_BETTER
from fedsim.report.drawing import GREY, grid, legend, titled
from fedsim.report.endpoint import Judgement
from fedsim.report.figures import PALETTE
from fedsim.report.wording import AXIS_LABELS, CI

_MARKERS = "osD^vPX"
_MOST_SITES = 12  # that have a colour each; of more, all patients are grey
_MOST_REGIMES = 12
_SPREAD = 0.5  # of a row's height, over which its patients are drawn
_BAND = "#E8EDF2"


def patient_differences(
    volumes: pd.DataFrame, quality: str, reference: str, judgement: Judgement | None = None
) -> Figure | None:
    """Differences to the reference, a marker per test subject; None without a pair, or with too many regimes to draw.

    Args:
        volumes: Rows of volumes.parquet; sites within subject are left out, unless all are.
        quality: One of their qualities.
        reference: The method at 0.
        judgement: The study's endpoint, if it has this quality: its margin and its means are drawn, too.
    """
    apart = differences_by_patient(counted_sites(volumes), quality, reference)
    methods = [str(method) for method in apart.columns[len(PATIENT) :] if apart[method].notna().any()]
    if not methods or apart["regime"].nunique() > _MOST_REGIMES:
        return None
    regimes, sites = list(apart["regime"].unique()), list(apart["site"].unique())
    columns = min(3, len(regimes))
    lines = -(-len(regimes) // columns)
    figure, axes = grid(lines, columns, 3.1 * columns + 1.6, 0.34 * len(methods) + 1.1)
    cells = [axis for line in axes for axis in line]
    for axis, regime in zip(cells, regimes, strict=False):
        _strips(axis, apart[apart["regime"] == regime], methods, sites)
        if judgement is not None:
            _judged(axis, judgement, regime, methods)
        axis.set_title(titled("", regime, regimes), fontsize=9)
        axis.set_xlabel(f"test {AXIS_LABELS[quality]} − {reference}")
    for axis in cells[len(regimes) :]:
        axis.set_visible(False)
    legend(figure, cells[0], 6, _told(quality, reference, judgement, len(sites)))
    return figure


def _strips(axis: Axes, apart: pd.DataFrame, methods: list[str], sites: list[str]) -> None:
    """One row of markers per method; patients keep their height in all rows."""
    height = np.linspace(-_SPREAD / 2, _SPREAD / 2, len(apart)) if len(apart) > 1 else np.zeros(1)
    axis.axvline(0, color=GREY, lw=0.9)
    for place, site in enumerate(sites if len(sites) <= _MOST_SITES else [""]):
        own = (apart["site"] == site).to_numpy() if site else np.ones(len(apart), bool)
        many = f"patients of {len(sites)} sites"
        colour = PALETTE[place % len(PALETTE)] if site else GREY
        look: dict[str, Any] = {"color": colour, "marker": _MARKERS[place % len(_MARKERS)]}
        for row, method in enumerate(methods):
            label = (site or many) if row == 0 else None
            axis.scatter(apart.loc[own, method], row + height[own], s=13, alpha=0.75, lw=0, label=label, **look)
    axis.set_yticks(range(len(methods)), methods)
    axis.set_ylim(-0.7, len(methods) - 0.3)
    axis.grid(visible=False, axis="y")


def _judged(axis: Axes, judgement: Judgement, regime: str, methods: list[str]) -> None:
    """The margin as a band, and the mean over sites of each method with its interval."""
    axis.axvspan(-judgement.margin, judgement.margin, color=_BAND, zorder=0)
    table = judgement.table
    rows = table[table["regime"] == regime].set_index("method").reindex(methods)
    reach = rows[["low", "high"]].sub(rows["mean"], axis=0).abs().to_numpy(np.float64).T
    axis.errorbar(
        rows["mean"], np.arange(len(methods)), xerr=np.nan_to_num(reach), fmt="|", color="black", ms=11, lw=1.4,
        capsize=4, zorder=4,
    )  # fmt: skip


def _told(quality: str, reference: str, judgement: Judgement | None, sites: int) -> str:
    side = "left" if quality in LOWER_IS_BETTER else "right"
    parts = ["a marker: one patient, mean over seeds", f"to the {side} of 0 the method is better than {reference}"]
    if judgement is not None:
        parts.append(f"bar: mean over sites and its {CI}, mixed model; band: the margin, {judgement.margin:g}")
    return "; ".join(parts) + ("; colour: site" if sites <= _MOST_SITES else "")
