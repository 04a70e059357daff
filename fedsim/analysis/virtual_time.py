"""Simulated time in the ledger: when a quality was reached, how stale uploads were, and how busy the clients were.

Virtual times are seconds since the start of the run. They follow from the workload and the seed alone, whatever the
simulation itself takes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fedsim.analysis.comparison import FEWEST_SEEDS, holm, interval, p_value
from fedsim.core.text import value_text

OUTCOMES = ("trained", "late", "dropped", "unavailable")
"""How a turn of a client can end, in the order of tables and figures."""
SHARES = (0.9, 0.95, 0.98, 0.99, 1.0)
"""Shares of a run's best validation PSNR for which its report says when they were reached."""
SHARE = 0.98
"""The share of the reference's best validation PSNR that methods are timed to."""

_REACHED = ["regime", "method", "seed", "target", "virtual_s", "bytes", "end_s"]


def has_virtual_time(rounds: pd.DataFrame) -> bool:
    """Whether a run's rounds, or a study's curves, say when they ended in simulated time, and any has passed."""
    return "virtual_s" in rounds and bool((rounds["virtual_s"] > 0).any())


def milestones(rounds: pd.DataFrame) -> pd.DataFrame:
    """The first validated rounds of a run that reached shares of its best validation PSNR.

    Returns:
        share, target [dB], round, virtual_s, bytes (so far, both ways, all clients); empty without validation, or where
        the best is not above 0 dB, of which there are no shares.
    """
    sent = (rounds["uplink_bytes"] + rounds["downlink_bytes"]).cumsum()
    known = rounds.assign(bytes=sent).dropna(subset="psnr")
    best = known["psnr"].max()
    shares = SHARES if best > 0 else ()
    firsts = [(known["psnr"] >= share * best).idxmax() for share in shares]
    found = known.loc[firsts, ["round", "virtual_s", "bytes"]].reset_index(drop=True)
    return found.assign(share=shares, target=[share * best for share in shares])


def as_methods(curves: pd.DataFrame, axes: Mapping[str, Mapping[str, Any]], reference: str) -> tuple[pd.DataFrame, str]:
    """Curves and reference for `time_to_quality`: of a study that varies keys of `time`, their values count as methods.

    The other keys that it varies make its regimes; the reference is that of the first values.

    Args:
        curves: Rows of curves.parquet.
        axes: By regime, the values of the keys that the study varies, by dotted key.
        reference: A method.
    """
    told = {regime: _told(values, timed=True) for regime, values in axes.items()}
    if not any(told.values()):
        return curves, reference
    apart = {regime: _told(values, timed=False) or "all" for regime, values in axes.items()}
    several = curves["method"].nunique() > 1
    labels = curves["regime"].map(told) + (", " + curves["method"] if several else "")
    first = labels[curves["method"] == reference]
    known = curves.assign(method=labels, regime=curves["regime"].map(apart))
    together = pd.concat([own for _, own in known.groupby("regime", sort=False)])
    return together, str(first.iloc[0]) if len(first) else reference


def _told(values: Mapping[str, Any], *, timed: bool) -> str:
    """The values of the keys of `time`, or of the others, in words: buffer 4, concurrency 8."""
    chosen = {key: value for key, value in values.items() if key.startswith("time.") == timed}
    return ", ".join(f"{key.rpartition('.')[2]} {value_text(value)}" for key, value in chosen.items())


def time_to_quality(curves: pd.DataFrame, reference: str) -> pd.DataFrame:
    """When each run of a study first reached SHARE of the reference's best validation PSNR with the same seed.

    Args:
        curves: Rows of curves.parquet.
        reference: A method; regimes and seeds in which it has not run, or has stayed below 0 dB, are left out.

    Returns:
        One row per regime, method and seed: target [dB], virtual_s (end of the first validated round that reached it;
        NaN: none did), bytes (of the mean client until then), end_s (of the last validated round).
    """
    known = curves.dropna(subset=["psnr", "virtual_s"])
    best = known[known["method"] == reference].groupby(["regime", "seed"])["psnr"].max().to_dict()
    rows = []
    for (regime, method, seed), own in known.groupby(["regime", "method", "seed"], sort=False):
        if best.get((regime, seed), 0) > 0:
            target = SHARE * best[regime, seed]
            first = own[own["psnr"] >= target].head(1)
            sent = (first["bytes"] / first["clients"]).sum(min_count=1)
            ends = (first["virtual_s"].sum(min_count=1), sent, own["virtual_s"].max())
            rows.append((regime, method, seed, target, *ends))
    return pd.DataFrame(rows, columns=_REACHED)


def over_seeds(reached: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Time to quality with intervals over seeds, and how much faster than the reference it was reached.

    A mean over those seeds alone that reached the target would flatter a method that often does not, so there is none
    unless all did.

    Args:
        reached: From `time_to_quality`.
        reference: The method that others are divided by, seed by seed.

    Returns:
        One row per regime and method: seeds, reached (seeds that did), target [dB], mean, low and high [s] (Student's
        t), bytes (mean), end_s (mean); speed_up, speed_up_low and _high (geometric mean of the reference's time divided
        by the method's, and its interval), p (paired t test on logarithms that it is 1), p_holm and tests.
    """
    if reached.empty:
        return reached
    rows = []
    for (regime, method), own in reached.groupby(["regime", "method"], sort=False):
        complete = own if own["virtual_s"].notna().all() else own.assign(virtual_s=np.nan, bytes=np.nan)
        found = interval(complete["virtual_s"].dropna().tolist())
        of_reference = reached[(reached["regime"] == regime) & (reached["method"] == reference)]
        rows.append({
            "regime": regime, "method": method, "seeds": len(own), "reached": int(own["virtual_s"].count()),
            "target": own["target"].mean(), "mean": found.mean, "low": found.low, "high": found.high,
            "bytes": complete["bytes"].mean(), "end_s": own["end_s"].mean(),
            **_speed_up(complete, of_reference if method != reference else of_reference[:0]),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    p_values = table.groupby("regime", sort=False)["p"]
    corrected = p_values.transform(lambda values: pd.Series(holm(values.tolist()), values.index))
    return table.assign(p_holm=corrected, tests=p_values.transform("count"))


def _speed_up(own: pd.DataFrame, of_reference: pd.DataFrame) -> dict[str, float]:
    """How many times as fast as the reference, paired by seed; NaN where not all seeds of a side reached the target."""
    times = pd.concat({"own": own.set_index("seed"), "reference": of_reference.set_index("seed")}, axis=1, join="inner")
    ratios = times["reference", "virtual_s"] / times["own", "virtual_s"]
    found = interval(np.log(ratios).tolist() if ratios.between(0, np.inf, inclusive="neither").all() else [])
    ends = dict(zip(("speed_up", "speed_up_low", "speed_up_high"), np.exp([found.mean, *found[3:]]), strict=True))
    return {**ends, "p": p_value(found) if found.n >= FEWEST_SEEDS else np.nan}


def turns_of(rounds: pd.DataFrame, clients: pd.DataFrame) -> pd.DataFrame:
    """The turns of a run's clients: their rows in the ledger, with `seconds`, the virtual time that each used."""
    turns = clients[clients["virtual_begin_s"].notna()]
    ends = turns["virtual_end_s"].clip(upper=rounds["virtual_s"].max())
    return turns.assign(seconds=(ends - turns["virtual_begin_s"]).clip(lower=0.0))


def outcomes(turns: pd.DataFrame, available_s: float) -> pd.DataFrame:
    """How turns ended, one row per outcome that occurred.

    Args:
        turns: From `turns_of`.
        available_s: Virtual time of all clients together.

    Returns:
        outcome, turns, share (of all turns), seconds (virtual, of all of them), busy (share of available_s).
    """
    table = turns.groupby("outcome")["seconds"].agg(turns="size", seconds="sum")
    table = table.reindex([name for name in OUTCOMES if name in table.index])
    shares: pd.DataFrame = table.assign(
        share=table["turns"] / len(turns), busy=table["seconds"] / available_s
    ).reset_index()
    return shares


def staleness_counts(turns: pd.DataFrame) -> "pd.Series[int]":
    """Number of uploads that entered a server step, by their staleness in server steps, from 0 to the largest."""
    stale = turns.loc[turns["outcome"] == "trained", "staleness"].astype(int)
    counts: pd.Series[int] = stale.value_counts().reindex(range(stale.max() + 1 if len(stale) else 0), fill_value=0)
    return counts


def busy_shares(turns: pd.DataFrame, elapsed_s: float, clients: int) -> "pd.Series[float]":
    """The share of the run's virtual time in which each client was at work; 0 for those without a turn.

    Args:
        turns: From `turns_of`.
        elapsed_s: Virtual time of the run.
        clients: Number of clients, including those without a turn.
    """
    worked = turns.groupby("client")["seconds"].sum() / elapsed_s
    never = pd.Series(0.0, range(clients - len(worked)))
    shares: pd.Series[float] = pd.concat([worked, never]).sort_values(ignore_index=True)
    return shares


def by_region(clients: pd.DataFrame, best: int | None) -> pd.DataFrame:
    """Validation PSNR of each region's clients, with the parameters of their region.

    Args:
        clients: Rows of clients.parquet.
        best: The round that validation chose, if any.

    Returns:
        region, clients (number that were scored), best and last (PSNR [dB], mean over them, at the best round and at
        the last validated one); empty without regions or validation.
    """
    known = clients.dropna(subset="psnr") if "region" in clients else clients[:0]
    if known.empty:
        return pd.DataFrame(columns=["region", "clients", "best", "last"])
    last = known["round"].max()
    psnr = known.groupby(["region", "round"])["psnr"].mean().unstack("round")
    found = psnr.reindex(columns=[last if best is None else best, last]).set_axis(["best", "last"], axis=1)
    counts = known.groupby("region")["client"].nunique().rename("clients")
    table: pd.DataFrame = pd.concat([counts, found], axis=1).reset_index().astype({"region": int})
    return table
