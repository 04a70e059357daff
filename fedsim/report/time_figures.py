"""Figures of simulated time, of a run and of a study. Each function draws one from tables and returns it."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedsim.analysis.virtual_time import SHARE
from fedsim.core.text import time_unit
from fedsim.report.drawing import GREY, grid, legend, looks, titled
from fedsim.report.figures import LEGEND, PALETTE, marker_of

MOST_ROWS = 40
"""Clients beyond this number are not all drawn in the Gantt chart."""
MOST_STEPS = 80
"""Server steps beyond this number are not drawn in it."""
_MOST_TURNS, _MOST_BARS = 60, 40
_GRID = 200  # virtual times at which the curves of several seeds are compared
_COLOURS = {
    "trained": PALETTE[0], "trained, stale": PALETTE[5], "late": PALETTE[1], "dropped": PALETTE[3],
    "unavailable": PALETTE[4],
}  # fmt: skip


def quality_three_ways(rounds: pd.DataFrame, clients: int, best: int | None) -> Figure:
    """Validation PSNR, mean over clients, against the round, the bytes of a client and simulated time.

    Args:
        rounds: One row per round.
        clients: Number of clients.
        best: The round that validation chose, if any.
    """
    sent = (rounds["uplink_bytes"] + rounds["downlink_bytes"]).cumsum() / clients / 1e6
    size, unit = time_unit(rounds["virtual_s"].max())
    ways = {"round": rounds["round"], "MB up and down so far, mean client": sent,
            f"simulated time [{unit}]": rounds["virtual_s"] / size}  # fmt: skip
    figure, (axes,) = grid(1, 3, 9.2, 2.5)
    known = rounds["psnr"].notna()
    for axis, (label, x) in zip(axes, ways.items(), strict=True):
        axis.plot(x[known], rounds["psnr"][known], color=PALETTE[0], lw=1.6, marker=marker_of(rounds[known]), ms=3.5)
        at = known & (rounds["round"] == best)
        axis.plot(x[at], rounds["psnr"][at], "o", color=PALETTE[1], ms=7, mec="white", mew=1, label="best round")
        axis.set(xlabel=label, ylabel="validation PSNR [dB]" if axis is axes[0] else "")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    legend(figure, axes[0])
    return figure


def shown_clients(turns: pd.DataFrame) -> list[str]:
    """The clients of the Gantt chart, the fastest first: all, or MOST_ROWS evenly spaced by the time of a turn."""
    ranked = turns.groupby("client")["seconds"].median().sort_values(kind="stable").index
    places = np.linspace(0, len(ranked) - 1, min(MOST_ROWS, len(ranked))).round().astype(int)
    return [str(ranked[place]) for place in places]


def shown_until(turns: pd.DataFrame, rounds: pd.DataFrame) -> int:
    """The last round of the Gantt chart: that of the run, or earlier so that no row has more turns than can be seen."""
    shown = turns[turns["client"].isin(shown_clients(turns))].sort_values("virtual_end_s", kind="stable")
    beyond = shown[shown.groupby("client").cumcount() >= _MOST_TURNS]
    last = rounds["round"].max() if beyond.empty else max(rounds["round"].min(), beyond["round"].min() - 1)
    return int(last)


def virtual_gantt(turns: pd.DataFrame, rounds: pd.DataFrame) -> Figure:
    """The turns of clients in simulated time, a row per client; vertical lines are server steps, unless they are many.

    Args:
        turns: From `turns_of`.
        rounds: One row per round.
    """
    rows, steps = shown_clients(turns), rounds[rounds["round"] <= shown_until(turns, rounds)]
    end, (size, unit) = steps["virtual_s"].max(), time_unit(steps["virtual_s"].max())
    figure, ((axis,),) = grid(1, 1, 9.2, max(1.6, 0.9 + 0.17 * len(rows)))
    drawn = turns[turns["client"].isin(rows) & (turns["virtual_begin_s"] < end)]
    kinds = drawn["outcome"].where(~((drawn["outcome"] == "trained") & (drawn["staleness"] > 0)), "trained, stale")
    for (client, kind), own in drawn.groupby(["client", kinds], sort=False):
        bars = list(zip(own["virtual_begin_s"] / size, own["seconds"] / size, strict=True))
        place = (rows.index(str(client)) - 0.38, 0.76)
        axis.broken_barh(bars, place, facecolor=_COLOURS[str(kind)], edgecolor="white", lw=0.4, snap=False)
    if len(steps) <= MOST_STEPS:
        axis.vlines(steps["virtual_s"] / size, -0.6, len(rows) - 0.4, color=GREY, lw=0.6, zorder=0.5)
    axis.set_yticks(range(len(rows)), rows, fontsize=7, parse_math=False)
    axis.set(xlabel=f"simulated time [{unit}]", xlim=(0, end / size), ylim=(len(rows) - 0.4, -0.6))
    axis.grid(visible=False)
    there = [kind for kind in _COLOURS if (kinds == kind).any()]
    figure.legend(handles=[Patch(color=_COLOURS[kind], label=kind) for kind in there], ncols=len(there), **LEGEND)
    return figure


def staleness_and_steps(counts: "pd.Series[int]", rounds: pd.DataFrame) -> Figure:
    """A histogram of the staleness of uploads, and the simulated time of each server step.

    Args:
        counts: Uploads by staleness.
        rounds: One row per round.
    """
    figure, ((stale, steps),) = grid(1, 2, 9.2, 2.4)
    width = math.ceil(len(counts) / _MOST_BARS)  # of a bar [server steps]
    bars = counts.groupby(counts.index // width).sum() / counts.sum()
    stale.bar(bars.index * width, bars, 0.8 * width, align="edge" if width > 1 else "center", color=PALETTE[0])
    stale.set(xlabel="staleness [server steps]", ylabel="share of uploads")
    stale.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    stale.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    took = rounds["virtual_s"].diff().fillna(rounds["virtual_s"])
    size, unit = time_unit(took.max())
    steps.plot(rounds["round"], took / size, color=PALETTE[0], lw=1.4, marker=marker_of(rounds), ms=3.5)
    steps.set(xlabel="round (server step)", ylabel=f"simulated time of the step [{unit}]")
    steps.set_ylim(bottom=0)
    steps.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    return figure


def quality_by_time(curves: pd.DataFrame, reached: pd.DataFrame, reference: str) -> Figure:
    """Validation PSNR against simulated time, and the time to quality of every method; one row of axes per regime.

    Args:
        curves: Rows of curves.parquet.
        reached: From `over_seeds`.
        reference: Method that is drawn thicker.
    """
    known = curves.dropna(subset=["psnr", "virtual_s"])
    regimes, look_of = list(known["regime"].unique()), looks(list(known["method"].unique()), reference)
    size, unit = time_unit(known["virtual_s"].max())
    figure, axes = grid(len(regimes), 2, 9.2, 2.9)
    for (curve, times), regime in zip(axes, regimes, strict=True):
        for method, own in known[known["regime"] == regime].groupby("method", sort=False):
            _over_seeds(curve, own.assign(virtual_s=own["virtual_s"] / size), look_of[str(method)])
        _to_quality(times, reached[reached["regime"] == regime], look_of, size)
        curve.set(xlabel=f"simulated time [{unit}]", ylabel=titled("validation PSNR [dB]", regime, regimes))
        times.set_xlabel(f"time [{unit}] to {100 * SHARE:g} % of the best PSNR of\n{reference}", parse_math=False)
    legend(figure, axes[0][0])
    return figure


def _over_seeds(axis: Axes, own: pd.DataFrame, look: dict[str, Any]) -> None:
    """Each seed as a thin line; mean and range over seeds while all of them run, linear between validated rounds."""
    lines = [line for _, line in own.groupby("seed")]
    for line in lines:
        axis.plot(line["virtual_s"], line["psnr"], color=look["color"], ls=look["ls"], lw=0.5, alpha=0.4)
    begin, end = (pick(line["virtual_s"].iloc[at] for line in lines) for pick, at in ((max, 0), (min, -1)))
    x = np.linspace(begin, max(begin, end), _GRID)
    table = np.array([np.interp(x, line["virtual_s"], line["psnr"]) for line in lines])
    axis.plot(x, table.mean(axis=0), **{**look, "marker": ""})
    axis.fill_between(x, table.min(axis=0), table.max(axis=0), color=look["color"], alpha=0.1, lw=0)


def _to_quality(axis: Axes, reached: pd.DataFrame, look_of: dict[str, dict[str, Any]], size: float) -> None:
    """A point with its interval for each method; what not all seeds reached is said in words."""
    methods = list(reached["method"])
    for place, row in enumerate(reached.to_dict("records")):
        colour = look_of[str(row["method"])]["color"]
        if row["reached"] < row["seeds"]:
            text = f"reached by {row['reached']} of {row['seeds']} seeds"
            axis.text(0.02, place, text, color=colour, fontsize=8, va="center", transform=axis.get_yaxis_transform())
            continue
        reach = np.nan_to_num([[row["mean"] - row["low"]], [row["high"] - row["mean"]]])
        axis.errorbar([row["mean"] / size], [place], xerr=reach / size, fmt="o", color=colour, capsize=3, ms=5)
    axis.set_yticks(range(len(methods)), methods, parse_math=False)
    axis.set(ylim=(len(methods) - 0.5, -0.5))
    axis.set_xlim(left=0)
    axis.grid(visible=False, axis="y")
