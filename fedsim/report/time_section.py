"""The section on simulated time of a run's report."""

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from fedsim.analysis.virtual_time import busy_shares, by_region, milestones, outcomes, staleness_counts, turns_of
from fedsim.report.page import Picture
from fedsim.report.time_figures import (
    MOST_STEPS,
    quality_three_ways,
    shown_clients,
    shown_until,
    staleness_and_steps,
    virtual_gantt,
)

Draw = Callable[[str, Figure, str, str], Picture]
"""Saves a figure under a name and returns it with title and caption."""

_MEANINGS = {
    "trained": "the upload entered a server step",
    "late": "not in time for its round: received the model, sent nothing",
    "dropped": "left during its turn: received the model, used time, sent nothing",
    "unavailable": "absent when drawn, or left before it had finished",
}


def time_section(
    rounds: pd.DataFrame, clients: pd.DataFrame, count: int, best: int | None, draw: Draw
) -> dict[str, Any]:
    """The content of the section.

    Args:
        rounds: Rows of rounds.parquet, with virtual_s.
        clients: Rows of clients.parquet.
        count: Number of clients, including those that never had a turn.
        best: The round that validation chose, if any.
        draw: Keeps a figure for the page.
    """
    turns, elapsed = turns_of(rounds, clients), float(rounds["virtual_s"].max())
    counts, busy = staleness_counts(turns), busy_shares(turns, elapsed, count)
    ended = outcomes(turns, elapsed * count)
    ended = ended.assign(meaning=ended["outcome"].map(_MEANINGS))
    return {
        "elapsed": elapsed, "real": float(rounds["seconds"].sum()), "steps": len(rounds), "turns": len(turns),
        "at_work": float(turns["seconds"].sum()) / elapsed, "milestones": milestones(rounds).to_dict("records"),
        "clients": count, "never": count - turns["client"].nunique(), "outcomes": ended.to_dict("records"),
        "busy": {"least": float(busy.min()), "median": float(busy.median()), "most": float(busy.max())},
        "idle": 1 - float(busy.mean()), "levels": _levels(rounds),
        "regions": by_region(clients, best).to_dict("records"),
        "staleness": _staleness(counts), "pictures": list(_pictures(rounds, turns, counts, count, best, draw)),
    }  # fmt: skip


def _staleness(counts: "pd.Series[int]") -> dict[str, float]:
    """Mean and largest staleness of uploads [server steps]."""
    mean = float((counts.index * counts).sum() / counts.sum()) if len(counts) else 0.0
    return {"mean": mean, "most": max(len(counts) - 1, 0)}


def _levels(rounds: pd.DataFrame) -> list[dict[str, Any]]:
    """Bytes of all rounds at each level of a hierarchy; empty without one."""
    if "region_uplink_bytes" not in rounds:
        return []
    prefixes = {"clients and the servers of their regions": "", "servers of regions and the top": "region_"}
    return [
        {"between": between, **{way: int(rounds[f"{prefix}{way}_bytes"].sum()) for way in ("uplink", "downlink")}}
        for between, prefix in prefixes.items()
    ]


def _pictures(
    rounds: pd.DataFrame, turns: pd.DataFrame, counts: "pd.Series[int]", count: int, best: int | None, draw: Draw
) -> Iterator[Picture]:
    if rounds["psnr"].notna().any():
        caption = "Validation PSNR, mean over clients. The three axes count the same rounds."
        figure = quality_three_ways(rounds, count, best)
        yield draw("virtual-quality", figure, "Quality against simulated time", caption)
    if len(turns):
        caption = _rows_told(turns, rounds)
        yield draw("virtual-gantt", virtual_gantt(turns, rounds), "Clients in simulated time", caption)
    if len(counts):
        caption = "Staleness: server steps from the model that a client began with to the step that took its upload."
        yield draw("virtual-staleness", staleness_and_steps(counts, rounds), "Staleness and server steps", caption)


def _rows_told(turns: pd.DataFrame, rounds: pd.DataFrame) -> str:
    """The caption of the Gantt chart, with what it leaves out."""
    rows, seen, until = shown_clients(turns), turns["client"].nunique(), shown_until(turns, rounds)
    some = f"{len(rows)} of the {seen:,} clients that had a turn, evenly spaced by its length" * (len(rows) < seen)
    cut = f"up to round {until} of {rounds['round'].max()}" * bool(until < rounds["round"].max())
    left_out = "; ".join(filter(None, (some, cut)))
    steps = "; a vertical line is a server step" * bool(until <= MOST_STEPS)
    told = f"A row per client, the fastest on top; a bar is a turn, from download to upload{steps}."
    return told + (f" Shown: {left_out}." if left_out else "")
