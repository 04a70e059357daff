"""The sites in latent space: t-SNE of the latent vectors, one panel per method, with silhouettes in the titles."""

import math
from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.analysis.latents import embed, latents, separation, vectors_of
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run, Which
from fedsim.report.figures import PALETTE

_MOST_SLICES = 1000  # slices in a panel: exact t-SNE is quadratic in them
_MARKERS = "os^Dvp"
_COLUMNS = 4  # of panels


def latent_figure(runs: Mapping[str, Run], which: Which = "best", seed: int = 0) -> Figure:
    """t-SNE of the latent vectors coloured by site, one panel per run; the title has the silhouette by site.

    Args:
        runs: By label.
        which: The round of each run.
        seed: Seed of t-SNE; the same seed gives the same figure.

    Raises:
        InputError: there is no run, or one has too few slices.
    """
    if not runs:
        raise InputError("there is no run to show")
    tables = {label: latents(run, which) for label, run in runs.items()}
    sites = list(dict.fromkeys(site for table in tables.values() for site in table["site"]))
    columns = min(_COLUMNS, len(runs))
    rows = math.ceil(len(runs) / columns)
    figure = Figure(figsize=(max(4.6, 2.9 * columns), 3.3 * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(runs) :]:
        axis.set_axis_off()
    for axis, (label, table) in zip(axes, tables.items(), strict=False):
        _draw(axis, label, _thinned(table), sites, seed)
    handles, names = axes[0].get_legend_handles_labels()
    note = "t-SNE of the networks' coarsest features, one dot per slice; silhouettes are of the features themselves"
    figure.legend(
        handles, names, title=fill(note, int(18 * figure.get_figwidth())), loc="outside lower center",
        ncols=min(8, len(sites)), frameon=False, fontsize=8.5, title_fontsize=8,
    )  # fmt: skip
    return figure


def _thinned(table: pd.DataFrame) -> pd.DataFrame:
    """At most `most` rows, evenly spaced."""
    at = np.linspace(0, len(table) - 1, min(len(table), _MOST_SLICES)).round().astype(int)
    return table.iloc[at]


def _draw(axis: Axes, label: str, table: pd.DataFrame, sites: list[str], seed: int) -> None:
    points = embed(vectors_of(table), seed)
    for index, site in enumerate(sites):
        mine = points[(table["site"] == site).to_numpy()]
        look: dict[str, Any] = {
            "color": PALETTE[index % len(PALETTE)],
            "marker": _MARKERS[index // len(PALETTE) % len(_MARKERS)],
        }
        axis.scatter(mine[:, 0], mine[:, 1], s=22, alpha=0.8, linewidths=0, label=site, **look)
    score = separation(table)
    told = "one site" if math.isnan(score) else f"silhouette by site {score:+.2f}"
    axis.set_title(f"{label}\n{told}, {len(table)} slices", fontsize=9.5, parse_math=False)
    axis.set(xticks=[], yticks=[])
    axis.margins(0.08)
