"""Figures of a scaling study: time, speed-up and efficiency against cores or nodes, and where the time went."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.analysis.scaling_law import ScalingLaw, efficiencies, predicted, serial_shares, speed_ups, unit_of
from fedsim.analysis.scores import by_seed_at
from fedsim.report.drawing import (
    GREY,
    Named,
    beside,
    error_line,
    from_zero_or_log,
    grid,
    legend,
    log_counts,
    looks,
    span,
    value_ticks,
)
from fedsim.report.figures import PALETTE
from fedsim.study.results import SHARES

_COLUMNS = [f"{share}_share" for share in SHARES]
_FLOOR = {"color": "#333333", "ls": ":", "marker": "x", "ms": 4, "lw": 1.4, "label": "bare training loop"}
_SHARE_COLOURS = {
    "train": PALETTE[0], "evaluate": PALETTE[5], "load": PALETTE[4], "send": PALETTE[3], "idle": "#D0D4D8",
}  # fmt: skip


def scaling_figures(points: pd.DataFrame, law: ScalingLaw, reference: str) -> Named:
    """Every figure of a scaling study.

    Args:
        points: Rows of results.parquet.
        law: Strong or weak.
        reference: Method that is drawn thicker.
    """
    yield "scaling", scaling(points, law, reference)
    if points[_COLUMNS].notna().to_numpy().any():
        yield "time-shares", time_shares(points)


def scaling(points: pd.DataFrame, law: ScalingLaw, reference: str) -> Figure:
    """Time per round, speed-up and efficiency, with the ideal and the floor: a bare loop that does the same work."""
    unit = unit_of(points)
    counts = np.sort(points[unit].unique()).astype(np.float64)
    figure, ((time, gain, efficiency),) = grid(1, 3, 9.2, 3.0)
    gain.plot(counts, counts / counts[0], color=GREY, lw=0.9, label="ideal")
    efficiency.axhline(1, color=GREY, lw=0.9)
    look_of = looks(list(points["method"].unique()), reference)
    lines = [("floor_seconds", points, _FLOOR)] if points["floor_seconds"].notna().any() else []
    lines += [("round_seconds", own, look_of[str(name)]) for name, own in points.groupby("method", sort=False)]
    fits = []
    for place, (seconds, own, look) in enumerate(lines):
        gains, shift = speed_ups(own, law, seconds), beside(place, len(lines))
        for axis, table in ((time, by_seed_at(own, unit, seconds)), (gain, gains), (efficiency, efficiencies(gains))):
            error_line(axis, table, look, shift, bar_of=span)
        shares = serial_shares(own, law, seconds)
        if shares:
            fits.append(f"{look['label']} {100 * float(np.mean(shares)):.1f} %")
            gain.plot(
                counts, predicted(law, float(np.mean(shares)), counts / counts[0]), color=look["color"], lw=0.7, ls="--"
            )
    _label(time, gain, efficiency, law, unit, counts)
    from_zero_or_log(time, pd.concat([points["round_seconds"], points["floor_seconds"]]))
    note = f"median round, the first left out; bars: range over {points['seed'].nunique()} seeds"
    told = f"; thin dashes: {law.author}'s law with a serial share of {', '.join(fits)}" if fits else ""
    legend(figure, gain, note=note + told)
    return figure


def _label(time: Axes, gain: Axes, efficiency: Axes, law: ScalingLaw, unit: str, counts: np.ndarray) -> None:
    for axis in (time, gain, efficiency):
        log_counts(axis, counts)
        axis.set_xlabel(unit)
    gain.set_yscale("log")
    value_ticks(gain.yaxis, counts / counts[0])
    time.set_ylabel("seconds per round")
    scaled = "scaled " if law.work_grows else ""
    gain.set_ylabel(f"{scaled}speed-up over {counts[0]:g} {unit.removesuffix('s') if counts[0] == 1 else unit}")
    efficiency.set_ylabel("efficiency")
    efficiency.set_ylim(0, max(1.1, 1.05 * efficiency.get_ylim()[1]))


def time_shares(points: pd.DataFrame) -> Figure:
    """Where the slots' time went, mean over seeds: one stacked bar per number of workers, one axes per method."""
    unit, methods = unit_of(points), list(points["method"].unique())
    figure, (axes,) = grid(1, len(methods), max(4.6, 2.9 * len(methods)), 2.9)
    for axis, method in zip(axes, methods, strict=True):
        table = points[points["method"] == method].groupby(unit)[_COLUMNS].mean()
        bottom = np.zeros(len(table))
        for share, colour in _SHARE_COLOURS.items():
            heights = 100 * table[f"{share}_share"].fillna(0).to_numpy(np.float64)
            axis.bar(range(len(table)), heights, 0.6, bottom, color=colour, label=share)
            bottom += heights
        axis.set_xticks(range(len(table)), [f"{count:g}" for count in table.index])
        axis.grid(visible=False, axis="x")
        axis.set(xlabel=unit, ylim=(0, 100), title=method, xlim=(-0.6, len(table) - 0.4))
    axes[0].set_ylabel("share of the slots' time [%]")
    legend(figure, axes[0])
    return figure
