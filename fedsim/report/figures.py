"""Figures of a run. Each function draws one from tables or arrays and returns it; `save_figure` writes it.

Clients keep their colour and line style in all figures. The palette is Okabe and Ito's, without its yellow.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsim.core.files import replacing
from fedsim.engine.record.term import NEAR
from fedsim.mri.references import HEADS
from fedsim.report.panels import Panel

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
MOST_NAMED = 12
"""Clients beyond this number are drawn as a crowd."""

_DASHES = ("-", "--")
PALE, DARK = "#B8BEC4", "#404040"
"""Greys of what stands behind and of what is written."""
_MOST_THIN = 100  # single lines that are drawn in a crowd
ERROR_COLOURS = "inferno"
"""Colour map of error maps, in figures and in the viewer."""
LEGEND: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": 8.5}
STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.titlesize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#808080", "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#E4E7EA", "grid.linewidth": 0.7, "axes.linewidth": 0.8,
}  # fmt: skip
_NO_DATE: dict[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
_PART = {"test": "test split", "val": "validation split: no test data", "train": "training split: no other data"}


def learning_curves(clients: pd.DataFrame, best: int | None) -> Figure:
    """Training loss, validation PSNR and SSIM against the round, a line per client; `best` is marked.

    Args:
        clients: One row per client per round, in the federation's order.
        best: The round that validation chose, if any.
    """
    names = list(clients["client"].unique())
    figure, axes = _figure(9.2, 3.3, 3)
    labels = {"loss": "training loss", "psnr": "validation PSNR [dB]", "ssim": "validation SSIM"}
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        known = clients[["round", "client", column]].replace([math.inf, -math.inf], math.nan).dropna()
        lines = known.rename(columns={column: "value"}).set_index("round").sort_index(kind="stable")
        _style_rounds(axis, label)
        if lines.empty:
            axis.set(xticks=[], yticks=[])
            axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color="#808080")
        elif len(names) <= MOST_NAMED:
            _draw_named(axis, lines, names, best)
        else:
            _draw_crowd(axis, lines, names)
        if best is not None:
            _mark(axis, best)
    handles = next((found[0] for axis in axes if (found := axis.get_legend_handles_labels())[0]), [])
    if handles:
        figure.legend(handles=handles, ncols=min(7, len(handles)), **LEGEND)
    return figure


def contrastive_ratio(by_round: pd.DataFrame) -> Figure:
    """The contrastive term's mean ratio against the round, with its bound and the range near the bound.

    Args:
        by_round: ratio and bound, by round.
    """
    figure, (axis,) = _figure(6.4, 2.7, 1)
    at, bound = by_round.index.to_numpy(np.float64), by_round["bound"].to_numpy(np.float64)
    if len(at) == 1:  # a line needs two points
        at, bound = at + np.array([-0.5, 0.5]), bound.repeat(2)
    axis.fill_between(at, NEAR * bound, bound, color=PALETTE[1], alpha=0.2, lw=0, label=f"above {NEAR:g} of the bound")
    axis.plot(at, bound, color=PALETTE[1], ls="--", lw=1.2, label="bound")
    axis.plot(
        by_round.index,
        by_round["ratio"],
        color=PALETTE[0],
        lw=1.6,
        marker=marker_of(by_round),
        ms=3.5,
        label="ratio P / N",
    )
    _style_rounds(axis, "contrastive ratio")
    axis.set_ylim(bottom=0, top=1.1 * max(bound.max(), by_round["ratio"].max()))
    figure.legend(ncols=3, **LEGEND)
    return figure


def time_and_bytes(rounds: pd.DataFrame, clients: pd.DataFrame) -> Figure:
    """Seconds of every round next to its clients' training time, and megabytes sent up and down.

    Args:
        rounds: One row per round.
        clients: One row per client per round.
    """
    figure, (time, size) = _figure(9.2, 2.9, 2)
    training = clients.groupby("round")["train_seconds"].sum()
    at = rounds["round"]
    look: dict[str, Any] = {"marker": marker_of(rounds), "ms": 3.5, "lw": 1.6}
    time.plot(at, rounds["seconds"], color=PALETTE[0], label="wall clock", **look)
    time.plot(training.index, training, color=PALETTE[1], ls="--", label="training, all clients", **look)
    mean = training / rounds.set_index("round")["clients"]
    time.plot(mean.index, mean, color=PALETTE[4], ls=":", label="training, mean client", **look)
    size.plot(at, rounds["downlink_bytes"] / 1e6, color=PALETTE[2], label="down", **look)
    size.plot(at, rounds["uplink_bytes"] / 1e6, color=PALETTE[3], ls="--", label="up", **look)
    for axis, label in ((time, "seconds per round"), (size, "MB per round, all clients")):
        _style_rounds(axis, label)
        axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.05 or 1)
        axis.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3,
                    columnspacing=1, handlelength=1.6, handletextpad=0.5)  # fmt: skip
    return figure


def site_panel(panel: Panel) -> Figure:
    """Ground truth, images without training, reconstruction and mask, with the error maps below, on one scale."""
    columns = 3 + len(panel.untrained)
    figure = Figure(figsize=(2.15 * columns, 4.9), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.02)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(2, columns)
    for axis in axes.flat:
        axis.set_axis_off()
    window = float(np.percentile(panel.target, 99.5)) or 1.0
    images = {**panel.untrained, "": panel.reconstruction}
    heads = ["Ground truth\n", *(_with_score(prefix, panel) for prefix in images)]
    for axis, head, image in zip(axes[0], heads, (panel.target, *images.values()), strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=window, aspect=panel.aspect)
        axis.set_title(head, fontsize=9)
    axes[0, -1].set_axis_on()
    axes[0, -1].set(xticks=[], yticks=[])
    axes[0, -1].imshow(panel.mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=panel.aspect)
    axes[0, -1].set_title(f"Mask: {panel.mask_kind}\nR = {panel.acceleration:.2f} measured", fontsize=9)
    _draw_errors(axes[1], panel, window)
    _describe(axes[1, 0], panel)
    names = (panel.site, f"client {panel.client}" if panel.client != panel.site else "", panel.contrast)
    stamps = (_PART[panel.part], "WITHIN SUBJECT" if panel.within_subject else "")
    heading = "  ·  ".join(filter(None, names + stamps))
    figure.suptitle(heading, fontsize=11, fontweight="bold", x=0.01, ha="left", parse_math=False)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG or PDF, by the path's ending: the same bytes for the same figure; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, metadata=_NO_DATE[kind])
    return path


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure [inch] with axes side by side, in the style of all figures."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _style_rounds(axis: Axes, label: str) -> None:
    axis.set_xlabel("round")
    axis.set_ylabel(label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def _draw_named(axis: Axes, lines: pd.DataFrame, names: Sequence[str], best: int | None) -> None:
    for index, name in enumerate(names):
        line = lines.loc[lines["client"] == name, "value"]
        colour, dashes = PALETTE[index % len(PALETTE)], _DASHES[index // len(PALETTE) % len(_DASHES)]
        axis.plot(line.index, line, color=colour, ls=dashes, lw=1.5, marker=marker_of(line), ms=2.5, label=name)
        if best is not None and best in line.index:
            axis.plot([best], [line[best]], "o", color=colour, ms=6, mec="white", mew=1, zorder=3)


def _draw_crowd(axis: Axes, lines: pd.DataFrame, names: Sequence[str]) -> None:
    """Some clients as thin lines, with the median and the middle 80 % of all clients."""
    some = names[:: math.ceil(len(names) / _MOST_THIN)]
    crowd = f"{len(some)} of {len(names)} clients" if len(some) < len(names) else f"all {len(some)} clients"
    few = lines[lines["client"].isin(some)]  # of a million clients, no table of all rounds and clients is made
    for index, name in enumerate(some):
        line = few.loc[few["client"] == name, "value"]
        label = crowd if not index else None
        axis.plot(line.index, line, color=PALE, lw=0.5, alpha=0.7, label=label)
    by_round = lines.groupby("round")["value"]
    low, median, high = (by_round.quantile(share) for share in (0.1, 0.5, 0.9))
    axis.fill_between(low.index, low, high, color=PALETTE[0], alpha=0.25, lw=0, label="10th to 90th percentile")
    axis.plot(median.index, median, color=PALETTE[0], lw=2, marker=marker_of(median), ms=3, label="median client")


def marker_of(points: pd.DataFrame | pd.Series) -> str:
    """A marker for each point, unless they are many."""
    return "o" if len(points) <= 20 else ""


def _mark(axis: Axes, best: int) -> None:
    axis.axvline(best, color=DARK, lw=0.9, ls=(0, (4, 3)), zorder=1)
    low, high = axis.get_xlim()
    side = "right" if best > low + 0.75 * (high - low) else "left" if best < low + 0.25 * (high - low) else "center"
    axis.text(best, 1.02, f"best: round {best}", transform=axis.get_xaxis_transform(), ha=side, fontsize=8, color=DARK)


def _with_score(prefix: str, panel: Panel) -> str:
    """The name and the numbers of the image with a prefix, empty for the reconstruction."""
    psnr, ssim = panel.scored(prefix)
    return f"{HEADS.get(prefix, 'Reconstruction')}\nPSNR {psnr:.2f} dB, SSIM {ssim:.3f}"


def _draw_errors(axes: Sequence[Axes], panel: Panel, window: float) -> None:
    """Error maps from the second cell on, in percent of the grey window, and their scale in the last."""
    images = (*panel.untrained.values(), panel.reconstruction)
    errors = [100 * np.abs(image - panel.target) / window for image in images]
    top = float(np.percentile(errors, 99.5)) or 1.0
    for axis, error in zip(axes[1:-1], errors, strict=True):
        shown = axis.imshow(error, cmap=ERROR_COLOURS, vmin=0, vmax=top, aspect=panel.aspect)
    scale = axes[-1].inset_axes((0.02, 0.02, 0.07, 0.96))
    bar = axes[-1].figure.colorbar(shown, cax=scale, extend="max")
    bar.set_label("|x − ground truth|  [% of white]", fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _describe(axis: Axes, panel: Panel) -> None:
    volume = panel.volume if len(panel.volume) <= 28 else f"{panel.volume[:14]}…{panel.volume[-13:]}"
    lines = [
        volume, f"slice {panel.slice}, model of round {panel.round}", "", "PSNR and SSIM over the",
        f"volume's {panel.slices} slices,", f"protocol {panel.protocol}", "", f"nominal R = {panel.nominal}",
    ]  # fmt: skip
    axis.text(0.0, 0.97, "\n".join(lines), va="top", fontsize=8, linespacing=1.35, parse_math=False)
