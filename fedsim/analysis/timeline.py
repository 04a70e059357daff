"""The ledger as a timeline: where the time of the rounds went, how busy each actor was, and which clients were slow.

A slot can train one client at a time. A round has `slots * seconds` of time available; with fewer clients than slots,
only as many slots as clients count, since no engine could use more. An actor is a process (node, pid); if there are
more actors than slots they take turns, and one that waits for a slot is idle.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsim.engine.record.ledger import SUM_LEVELS

PHASES = ("load", "train", "send", "evaluate")
"""The phases of an actor's work for a client, in this order; the rest of its time it is idle."""
MOST_ACTORS = 8
"""Actors beyond this number are summarised in the report."""

_BETWEEN = 1e-3  # tolerance for differing clocks, as a share of a round
_SECONDS = [f"{phase}_seconds" for phase in PHASES]
_OF_CLIENT = {"begin_seconds", "wait_seconds", "evaluate_begin_seconds", "node", "pid", *_SECONDS}
_OF_ROUND = {"seconds", "slots"}


@dataclass(frozen=True)
class Timeline:
    """What a run's ledger says about time."""

    rounds: pd.DataFrame  # one row per round, indexed by it: seconds, slots
    turns: pd.DataFrame  # one row per client per round in which an actor worked for it; with `actor`, as node:pid

    @property
    def shown(self) -> int:
        """The last round with training: the one to draw."""
        return int(self.turns.loc[self.turns["train_seconds"] > 0, "round"].max())


def timeline_of(rounds: pd.DataFrame, clients: pd.DataFrame) -> Timeline | None:
    """The rounds for which the ledger says how time was spent; None if there are none with training.

    Args:
        rounds: One row per round.
        clients: One row per client per round.
    """
    if not (set(rounds) >= _OF_ROUND and set(clients) >= _OF_CLIENT):
        return None
    kept = rounds.set_index("round")[["seconds", "slots"]].dropna()  # the first rows of a resumed run may lack it
    kept = kept[kept.gt(0).all(axis=1)]
    turns = clients[clients["round"].isin(kept.index) & clients["pid"].gt(0)]
    turns = turns.fillna(dict.fromkeys(_SECONDS, 0.0)).astype({"pid": int})
    turns["actor"] = turns["node"] + ":" + turns["pid"].astype(str)
    return Timeline(kept, turns) if turns["train_seconds"].gt(0).any() else None


def round_shares(timeline: Timeline) -> pd.DataFrame:
    """Where the time of every round went, one row per round: the shares of the phases, `idle` and `overhead`.

    A phase's share is sum(its seconds) / (slots * seconds), and idle is the rest. Overhead is
    slots * seconds / sum(train_seconds + evaluate_seconds) - 1: the cost of everything else relative to training and
    evaluation; NaN for a round without either. `slots` is at most the number of clients at work.
    """
    return _shares(_spent(timeline))


def summary(timeline: Timeline) -> pd.DataFrame:
    """One row for the first round and one for all others: `rounds`, median `seconds`, `slots`, and `round_shares`.

    Shares and overhead are over all their time together; `least` and `most` are overheads of single rounds.
    """
    spent, table, overhead = _spent(timeline), timeline.rounds, round_shares(timeline)["overhead"]
    groups = [part for part in (table.index[:1], table.index[1:]) if len(part)]
    pooled = _shares(pd.DataFrame([spent.loc[part].sum() for part in groups]))
    return pooled.assign(
        rounds=[_span(list(part)) for part in groups],
        seconds=[table.loc[part, "seconds"].median() for part in groups],
        slots=[_span(sorted(table.loc[part, "slots"])) for part in groups],
        least=[overhead[part].min() for part in groups],
        most=[overhead[part].max() for part in groups],
    )


def actor_shares(timeline: Timeline) -> pd.DataFrame:
    """How busy actors were: one row per actor and round in which it had a client.

    Columns: actor, round, clients, busy [s], seconds (of the round), idle = 1 - busy / seconds.
    """
    turns = timeline.turns.assign(busy=timeline.turns[_SECONDS].sum(axis=1))
    table = turns.groupby(["actor", "round"], sort=False, as_index=False).agg(
        clients=("client", "size"), busy=("busy", "sum")
    )
    table["seconds"] = table["round"].map(timeline.rounds["seconds"])
    return table.assign(idle=1 - table["busy"] / table["seconds"])


def actor_totals(timeline: Timeline) -> pd.DataFrame:
    """How busy actors were over all rounds in which they had a client: one row per actor; columns as in `actor_shares`.

    Here `clients` counts distinct ones, and `seconds` is the sum over these rounds.
    """
    clients = timeline.turns.groupby("actor")["client"].nunique()
    table = actor_shares(timeline).groupby("actor", sort=False)[["busy", "seconds"]].sum()
    return table.assign(clients=clients, idle=1 - table["busy"] / table["seconds"]).reset_index()


def client_times(timeline: Timeline) -> pd.DataFrame:
    """Seconds per client per round, one row per phase (waiting first): `phase`, `median`, `p90`, `max`.

    Only clients that trained count; for evaluation, only those that were validated.
    """
    turns = timeline.turns
    trained, validated = turns[turns["train_seconds"] > 0], turns[turns["evaluate_begin_seconds"].notna()]
    columns = {phase: trained[f"{phase}_seconds"] for phase in ("wait", "load", "train", "send")}
    columns["evaluate"] = validated["evaluate_seconds"]
    return pd.DataFrame([
        {"phase": phase, "median": times.median(), "p90": times.quantile(0.9), "max": times.max()}
        for phase, times in columns.items() if len(times)
    ])  # fmt: skip


def stragglers(timeline: Timeline, most: int = 5) -> pd.DataFrame:
    """The clients that took longest, slowest first: client, samples, seconds, ratio to the median client.

    A client's seconds are load + train + send, the median over its rounds, so a single slow round, as at start-up, does
    not count. Only clients above the median are listed.

    Args:
        timeline: Of the run.
        most: Clients listed.
    """
    trained = timeline.turns[timeline.turns["train_seconds"] > 0]
    took = trained.assign(took=trained[["load_seconds", "train_seconds", "send_seconds"]].sum(axis=1))
    table = took.groupby("client", sort=False).agg(samples=("samples", "first"), seconds=("took", "median"))
    table["ratio"] = table["seconds"] / table["seconds"].median()
    table = table.sort_values("ratio", ascending=False, kind="stable")
    return table[table["ratio"] > 1].head(most).reset_index()


def spans(turns: pd.DataFrame) -> pd.DataFrame:
    """The spans of one round: actor, client, phase, begin [s since the round began], seconds."""
    begin = {"load": turns["begin_seconds"], "evaluate": turns["evaluate_begin_seconds"]}
    begin["train"] = begin["load"] + turns["load_seconds"]
    begin["send"] = begin["train"] + turns["train_seconds"]
    parts = [
        turns[["actor", "client"]].assign(phase=phase, begin=begin[phase], seconds=turns[f"{phase}_seconds"])
        for phase in PHASES
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[table["begin"].notna() & table["seconds"].gt(0)]


def time_in(done: pd.DataFrame, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds of some spans in each interval between edges [s since the round began]."""
    begin = done["begin"].to_numpy(np.float64)
    return np.diff(_since(begin, edges) - _since(begin + done["seconds"].to_numpy(np.float64), edges))


def _since(points: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum(max(0, edge - point) over points) for every edge."""
    ordered = np.sort(points)
    passed = np.searchsorted(ordered, edges)
    before: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(ordered)])
    return np.asarray(passed * edges - before[passed], np.float64)


def overlapping(done: pd.DataFrame, seconds: float) -> bool:
    """Whether spans of an actor overlap, as when the phases of a client were added up.

    Args:
        done: From `spans`.
        seconds: Of the round.
    """
    ordered = done.sort_values("begin", kind="stable").assign(end=lambda table: table["begin"] + table["seconds"])
    ahead = ordered.groupby("actor")["begin"].shift(-1) - ordered["end"]
    return bool((ahead < -_BETWEEN * seconds).any())


def engine_facts(timeline: Timeline) -> dict[str, Any]:
    """The content of the report's section on the engine, without the figure."""
    actors, slots = actor_totals(timeline), timeline.rounds["slots"]
    facts: dict[str, Any] = {
        "rounds": summary(timeline), "times": client_times(timeline), "stragglers": stragglers(timeline),
        "actors": actors.assign(actor=actors["actor"].map(short_name)) if len(actors) <= MOST_ACTORS else actors[:0],
    }  # fmt: skip
    idle = np.quantile(actors["idle"], [0, 0.5, 1])
    busiest_round = timeline.turns.groupby("round")["actor"].nunique().max()
    return {
        **{name: table.to_dict("records") for name, table in facts.items()},
        "idle": dict(zip(("least", "median", "most"), map(float, idle), strict=True)),
        "actor_count": len(actors), "take_turns": bool(busiest_round > slots.max()),
    }  # fmt: skip


def sum_levels(rounds: pd.DataFrame) -> list[dict[str, Any]]:
    """The levels at which partial sums were added on their way to the server, in the order of that way.

    Medians over rounds: `bytes` that came in, and `seconds` that this took. Empty if the ledger does not say.
    """
    levels = [name for name in SUM_LEVELS if f"{name}_sum_bytes" in rounds]
    medians = ((name, rounds[[f"{name}_sum_bytes", f"{name}_sum_seconds"]].median()) for name in levels)
    return [
        {"level": name, "bytes": float(median.iloc[0]), "seconds": float(median.iloc[1])}
        for name, median in medians
        if median.iloc[0] > 0
    ]


def short_name(actor: str) -> str:
    """node:pid, without the middle of a long node's name."""
    return actor if len(actor) <= 30 else f"{actor[:12]}…{actor[-17:]}"


def _spent(timeline: Timeline) -> pd.DataFrame:
    """Seconds of every round by phase, and `given`: slots (at most one per client) * seconds."""
    by_round, rounds = timeline.turns.groupby("round"), timeline.rounds
    slots = rounds["slots"].clip(upper=by_round.size().reindex(rounds.index, fill_value=0))
    table = by_round[_SECONDS].sum().reindex(rounds.index, fill_value=0.0)
    return table.assign(given=slots * rounds["seconds"])


def _shares(spent: pd.DataFrame) -> pd.DataFrame:
    shares = pd.DataFrame({phase: spent[f"{phase}_seconds"] / spent["given"] for phase in PHASES})
    work = (shares["train"] + shares["evaluate"]).replace(0.0, math.nan)
    return shares.assign(idle=1 - shares.sum(axis=1), overhead=1 / work - 1)


def _span(values: list[float]) -> str:
    """The first and the last of some whole numbers, once if they are the same."""
    return " to ".join(dict.fromkeys(f"{value:.0f}" for value in (values[0], values[-1])))
