"""The quality of a run's reconstructions beside that without training: bars, or the distribution over many sites."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch
from numpy.typing import NDArray

from fedsim.engine.record.ledger import row_key
from fedsim.mri.references import UNTRAINED
from fedsim.report.drawing import grid, legend
from fedsim.report.figures import DARK, LEGEND, MOST_NAMED, PALE, PALETTE

MOST_BARS = 64
"""Sites that have a bar each; of more, the figure shows which share lies below what."""

_LABELS = {"psnr": "PSNR [dB]", "ssim": "SSIM"}
_FORMS = {"psnr": ".1f", "ssim": ".2f"}
_GREYS = dict(zip(UNTRAINED, (PALE, "#D9C8AE", "#A9BFA6", "#8C96A0"), strict=True))
_MOST_TICKS = 24  # bars that are named


def quality(evaluation: pd.DataFrame, clients: Sequence[str]) -> Figure:
    """PSNR and SSIM, without training against reconstructed, per client, or per site if clients are many.

    Args:
        evaluation: One row per client and volume, of one round and split, in the federation's order.
        clients: All clients of the federation, in its order, which determines their colours.
    """
    key = row_key(evaluation, MOST_NAMED) if len(clients) <= MOST_NAMED else "site"
    groups = evaluation.replace([math.inf, -math.inf], math.nan).groupby(key, sort=False)
    mean = groups.mean(numeric_only=True)
    untrained = [prefix for prefix in UNTRAINED if mean.get(f"{prefix}_psnr", pd.Series(np.nan)).notna().any()]
    figure, (axes,) = grid(1, 2, 9.2, 2.5)
    labels = {column: f"{label}, protocol {evaluation['protocol'].iloc[0]}" for column, label in _LABELS.items()}
    if len(mean) > MOST_BARS:
        _draw_shares(axes, mean, untrained, labels)
        within = int((mean["within_subject"] > 0).sum())
        legend(figure, axes[0], note=f"{within:,} of {len(mean):,} sites within subject" if within else "")
        return figure
    names = [str(name) for name in mean.index]
    colours = [PALETTE[list(clients).index(n) % len(PALETTE)] if key == "client" else PALETTE[0] for n in names]
    _draw_bars(
        axes, mean, groups.std(numeric_only=True), {**{f"{p}_": [_GREYS[p]] for p in untrained}, "": colours}, labels
    )
    shown = tuple(Patch(color=colour) for colour in dict.fromkeys(colours))
    told = [UNTRAINED[prefix] for prefix in untrained]
    told += [f"reconstruction (one colour a {key})" if len(shown) > 1 else "reconstruction"]
    handles: list[Any] = [*(Patch(color=_GREYS[prefix]) for prefix in untrained), shown]
    if (mean["within_subject"] > 0).any():
        handles.append(Patch(visible=False))
        told.append("† within subject")
    side_by_side = {tuple: HandlerTuple(ndivide=None, pad=0)}
    figure.legend(handles, told, ncols=len(told), handler_map=side_by_side, handlelength=2.5, **LEGEND)
    return figure


def _draw_bars(
    axes: Sequence[Axes],
    mean: pd.DataFrame,
    spread: pd.DataFrame,
    shades: Mapping[str, Sequence[str]],
    labels: Mapping[str, str],
) -> None:
    """Bars of some sites; `shades`, by the prefix of their columns, are those of the bars side by side."""
    names = [f"{name}{' †' * bool(within > 0)}" for name, within in mean["within_subject"].items()]
    at, width = np.arange(len(names), dtype=np.float64), 0.8 / len(shades)
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for place, (prefix, colours) in enumerate(shades.items()):
            x = at + (place - (len(shades) - 1) / 2) * width
            heights, error = (frame[prefix + column].to_numpy(np.float64) for frame in (mean, spread))
            axis.bar(x, heights, 0.95 * width, color=colours, yerr=error, error_kw={"lw": 1, "ecolor": DARK})
            if len(names) * len(shades) <= 2 * MOST_NAMED:
                _write_heights(axis, x, heights, np.nan_to_num(error), _FORMS[column])
        _name_bars(axis, names)
        axis.margins(y=0.1)
        axis.set_ylabel(label)
        axis.grid(visible=False, axis="x")


def _draw_shares(axes: Sequence[Axes], mean: pd.DataFrame, untrained: Sequence[str], labels: Mapping[str, str]) -> None:
    """The empirical distribution over many sites, those without a score left out."""
    looks = {f"{prefix}_": (_GREYS[prefix], UNTRAINED[prefix]) for prefix in untrained}
    looks[""] = PALETTE[0], "reconstruction"
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for prefix, (colour, told) in looks.items():
            known = mean[prefix + column].dropna()
            if len(known):
                axis.ecdf(known, color=colour, lw=1.8, label=f"{told}, {len(known):,} sites")
        axis.set(xlabel=label, ylabel="share of sites at or below", ylim=(0, 1))


def _write_heights(
    axis: Axes, at: NDArray[np.float64], heights: NDArray[np.float64], above: NDArray[np.float64], form: str
) -> None:
    for x, height, gap in zip(at, heights, above, strict=True):
        if np.isfinite(height):
            top = (x, height + gap)
            axis.annotate(format(height, form), top, (0, 2), textcoords="offset points", ha="center", fontsize=7.5)


def _name_bars(axis: Axes, names: Sequence[str]) -> None:
    step = math.ceil(len(names) / _MOST_TICKS)
    turned = len(names) > 1 and sum(map(len, names[::step])) > 40
    look: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axis.set_xticks(range(0, len(names), step), names[::step], **look)
    axis.set_xlim(-0.6, len(names) - 0.4)
