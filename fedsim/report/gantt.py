"""The figure of how actors spent a round: a Gantt chart of the timeline."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedsim.analysis.timeline import Timeline, short_name, spans, time_in
from fedsim.report.figures import LEGEND, PALETTE, STYLE

MOST_ROWS = 40
"""If there are more actors, only the slowest and the fastest are drawn."""
MOST_SPANS = 100
"""With more clients on an actor, its row shows shares of time instead of single clients."""
MOST_NAMES = 30
"""With more clients in the figure, none is named."""

_COLOURS = {"load": PALETTE[2], "train": PALETTE[1], "send": PALETTE[3], "evaluate": PALETTE[5]}
_IDLE, _DARK = "#E4E7EA", "#1D2329"
_STACKED = ("train", "evaluate", "send", "load")  # from below
_MOST_STRETCHES = 200
_TEXT_WIDTH = 150  # characters of a name that fit along a whole row


def gantt(timeline: Timeline, round_: int) -> Figure:
    """How actors spent a round: one row per actor, in the order in which they started; time [s] to the right.

    Args:
        timeline: Of the run.
        round_: One of its rounds.
    """
    done = spans(timeline.turns[timeline.turns["round"] == round_])
    seconds = float(timeline.rounds["seconds"][round_])
    rows, actors = _rows(done), done["actor"].nunique()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, max(2.1, 1.1 + 0.2 * (max(rows.values()) + 1))), layout="constrained")
        axis = figure.subplots()
    stacked = [_draw_row(axis, place, done[done["actor"] == actor], seconds) for actor, place in rows.items()]
    if done["client"].nunique() <= MOST_NAMES:
        _name_clients(axis, done[done["phase"] == "train"], rows, seconds)
    axis.set_yticks(list(rows.values()), [short_name(actor) for actor in rows], parse_math=False)
    axis.set(xlabel=f"seconds since round {round_} began", xlim=(0, seconds), ylim=(max(rows.values()) + 0.6, -0.6))
    axis.grid(visible=False, axis="y")
    axis.set_title(_note(actors > len(rows), actors, any(stacked)), loc="left", fontsize=8.5)
    handles = [Patch(color=colour, label=phase) for phase, colour in {**_COLOURS, "idle": _IDLE}.items()]
    figure.legend(handles=handles, ncols=len(handles), **LEGEND)
    return figure


def _note(some: bool, actors: int, stacked: bool) -> str:
    """What the figure leaves out or simplifies."""
    half = MOST_ROWS // 2
    notes = {
        f"the {half} busiest and the {half} least busy of {actors} actors": some,
        "height: share of the time, as there are too many clients to show each": stacked,
    }
    return "; ".join(note for note, holds in notes.items() if holds)


def _rows(done: pd.DataFrame) -> dict[str, int]:
    """Each actor's row from the top, in order of start; if too many, the slow ones, a gap, and the fast ones."""
    table = done.groupby("actor").agg(begin=("begin", "min"), busy=("seconds", "sum"))
    table = table.sort_values("begin", kind="stable")
    if len(table) <= MOST_ROWS:
        return {str(actor): place for place, actor in enumerate(table.index)}
    half, ranked = MOST_ROWS // 2, table.sort_values("busy", ascending=False, kind="stable").index
    slow = {str(actor): place for place, actor in enumerate(ranked[:half])}
    return slow | {str(actor): place for place, actor in enumerate(ranked[-half:], half + 1)}


def _draw_row(axis: Axes, place: int, done: pd.DataFrame, seconds: float) -> bool:
    """Draw an actor's row as idle, and its work on top; returns whether as shares, because clients are many."""
    axis.broken_barh([(0, seconds)], (place - 0.4, 0.8), color=_IDLE, lw=0, snap=False)
    if done["client"].nunique() > MOST_SPANS:
        _draw_stack(axis, place, done, seconds)
        return True
    for phase, group in done.groupby("phase"):
        bars = list(zip(group["begin"], group["seconds"], strict=True))
        axis.broken_barh(bars, (place - 0.4, 0.8), color=_COLOURS[str(phase)], lw=0, snap=False)
    return False


def _draw_stack(axis: Axes, place: int, done: pd.DataFrame, seconds: float) -> None:
    """A row with its height split like the actor's time, in short intervals of the round."""
    edges = np.linspace(0, seconds, min(_MOST_STRETCHES, done["client"].nunique() // 2) + 1)
    parts = {phase: time_in(done[done["phase"] == phase], edges) / np.diff(edges) for phase in _STACKED}
    tops = np.cumsum(list(parts.values()), axis=0)
    for phase, top in reversed(list(zip(parts, tops, strict=True))):  # lower ones over higher ones, to avoid seams
        axis.stairs(place + 0.4 - 0.8 * top, edges, baseline=place + 0.4, fill=True, color=_COLOURS[phase], lw=0)


def _name_clients(axis: Axes, trained: pd.DataFrame, rows: dict[str, int], seconds: float) -> None:
    """Each client's name in its training span, if there is room for it."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "color": _DARK, "parse_math": False}
    columns = ("actor", "client", "begin", "seconds")
    for actor, client, begin, took in zip(*(trained[column] for column in columns), strict=True):
        if len(client) < took / seconds * _TEXT_WIDTH:
            axis.text(begin + took / 2, rows[actor], client, clip_on=True, **look)
