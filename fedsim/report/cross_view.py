"""Every client's model on every site's data, as a table in a terminal and as a heat map."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich import box
from rich.table import Table

from fedsim.engine.record.ledger import read_table, write_table
from fedsim.engine.record.run_directory import Run
from fedsim.report.figures import save_figure

MOST_MODELS = 24
"""Clients beyond this number are shown as the means of their sites."""
_MOST_COLUMNS = 12  # columns of a table in a terminal
_MOST_SITES = 30  # with a number in every cell of the figure


def write_cross(run: Run, frame: pd.DataFrame) -> Path:
    """Write rows of `cross_evaluate` to RUN/cross.parquet, and their heat map to figures/cross.png; returns its path.

    Rows of other rounds and splits stay in the table; the figure shows these.
    """
    path = run.path / "cross.parquet"
    kept = frame
    if path.exists():
        old = read_table(path)
        other = (old["round"] != frame["round"].iloc[0]) | (old["split"] != frame["split"].iloc[0])
        kept = pd.concat([old[other], frame], ignore_index=True)
    write_table(path, kept)
    return save_figure(cross_figure(frame), run.path / "figures" / "cross.png")


def cross_matrix(frame: pd.DataFrame, column: str = "psnr") -> pd.DataFrame:
    """Means over volumes: one row per model, one column per site of the data, both in the federation's order."""
    return frame.pivot_table(index="client", columns="site", values=column, sort=False)


def cross_table(frame: pd.DataFrame) -> Table:
    """The matrix of PSNR, with that of zero-filled images as the last row; many sites become own and others' data."""
    shown = _grouped(frame)
    if frame["site"].nunique() > _MOST_COLUMNS:
        where = np.where(frame["own"], "own data", "other sites' data")
        shown = frame.assign(client="mean of clients", site=where, own=False)
    protocol, split, round_ = (frame[column].iloc[0] for column in ("protocol", "split", "round"))
    table = Table(
        box=box.SIMPLE_HEAD,
        title=rf"PSNR \[dB], {split} split, round {round_}, protocol {protocol}",
        caption="rows: models; columns: data of sites (* the model's own); means over volumes",
    )
    table.add_column("model")
    psnr, own = cross_matrix(shown), _own(shown)
    for site in psnr.columns:
        table.add_column(_label(frame, str(site)), justify="right")
    for (name, row), mine in zip(psnr.iterrows(), own.to_numpy(), strict=True):
        table.add_row(
            str(name), *(f"{value:.2f}{'*' if at_home else ' '}" for value, at_home in zip(row, mine, strict=True))
        )
    table.add_section()
    zero_filled = shown.groupby("site", sort=False)["zf_psnr"].mean()
    table.add_row("zero-filled", *(f"{zero_filled[site]:.2f} " for site in psnr.columns))
    return table


def cross_figure(frame: pd.DataFrame) -> Figure:
    """Heat map of the PSNR gain over zero-filled images: rows are models, columns the sites of the data."""
    shown = _grouped(frame)
    gain = cross_matrix(shown.assign(gain=shown["psnr"] - shown["zf_psnr"]), "gain")
    gain = gain.replace([np.inf, -np.inf], np.nan)
    rows, columns = gain.shape
    size = (min(15.0, 2.6 + 0.95 * columns), min(12.0, 1.9 + 0.42 * rows))
    figure = Figure(figsize=(max(4.8, size[0]), max(3.0, size[1])), layout="constrained")
    axis = figure.subplots()
    top = float(np.nanmax(np.abs(gain.to_numpy()), initial=0.0)) or 1.0
    image = axis.imshow(gain.to_numpy(), cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
    _name(axis, frame, shown, gain)
    if max(rows, columns) <= _MOST_SITES:
        _annotate(axis, gain, _own(shown), top)
    bar = figure.colorbar(image, ax=axis, pad=0.02)
    bar.set_label("PSNR gain over zero-filled [dB]", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    protocol, split, round_ = (frame[column].iloc[0] for column in ("protocol", "split", "round"))
    heading = f"{frame['algorithm'].iloc[0]}: every model on every site, {split} split, round {round_}, {protocol}"
    axis.set_title(heading, fontsize=9.5, loc="left", parse_math=False)
    return figure


def _grouped(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows to show: if clients are many, under the names of their sites."""
    if frame["client"].nunique() <= MOST_MODELS:
        return frame
    site_of = frame[frame["own"]].groupby("client")["site"].first()
    return frame.assign(client=frame["client"].map(site_of).fillna(frame["client"]))


def _own(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether the column's site is the one at which the row's model was trained."""
    return cross_matrix(frame.assign(own=frame["own"].astype(float)), "own") > 0


def _label(frame: pd.DataFrame, site: str) -> str:
    """A site's name, marked as unseen if it has no clients."""
    unseen = site in set(frame["site"]) and not frame.loc[frame["site"] == site, "own"].any()
    return f"{site} (unseen)" if unseen else site


def _name(axis: Axes, frame: pd.DataFrame, shown: pd.DataFrame, gain: pd.DataFrame) -> None:
    zero_filled = shown.groupby("site", sort=False)["zf_psnr"].mean()
    rows, columns = (list(range(0, length, -(-length // _MOST_SITES))) for length in gain.shape)
    few = len(gain.columns) <= _MOST_COLUMNS
    names = [str(gain.columns[at]) for at in columns]
    labels = [_label(frame, name) + (f"\nZF {zero_filled[name]:.1f} dB" if few else "") for name in names]
    axis.set_xticks(columns, labels, fontsize=8, rotation=0 if few else 90, parse_math=False)
    axis.set_yticks(rows, [str(gain.index[at]) for at in rows], fontsize=8, parse_math=False)
    axis.set_xlabel("data of site (ZF: the zero-filled images' PSNR)" if few else "data of site", fontsize=8.5)
    axis.set_ylabel("model of client (outlined: on its own data)", fontsize=8.5)


def _annotate(axis: Axes, gain: pd.DataFrame, own: pd.DataFrame, top: float) -> None:
    """The number in every cell, and a frame around a model's own data."""
    for y, name in enumerate(gain.index):
        for x, site in enumerate(gain.columns):
            value = gain.loc[name, site]
            colour = "white" if abs(value) > 0.6 * top else "#202020"
            axis.text(x, y, f"{value:+.2f}", ha="center", va="center", fontsize=8, color=colour)
            if own.loc[name, site]:
                frame = Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor="#E69F00", lw=2)
                axis.add_patch(frame)
