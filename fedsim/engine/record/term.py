"""FedMRI's contrastive term in the ledger: its ratio by round, its bound, and whether it switches itself off.

The ratio P / N is at most the largest weight in the mean (1 / S for S clients of equal weight). At the bound its
gradient vanishes: encoders that moved further from the server's than the negatives are spread feel no pull. They end up
spread out, so that the next round is held tight, and the one after that is free again.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

RATIO = "contrastive_ratio"
TERM_COLUMNS = ("round", "outcome", "weight", RATIO)
"""Of clients.parquet: what the term is judged by."""
NEAR = 0.9
"""Share of the bound above which the term counts as saturated."""
_SWING, _SWINGS = 0.2, 3  # share of the bound by which the ratio alternates, and how many times in a row


class Judged(NamedTuple):
    """What a sequence of ratios shows."""

    saturated: tuple[bool, ...]
    """By round: whether the ratio lies above NEAR of its bound."""
    alternates: bool
    """Whether the ratio alternates far more than batches explain."""


def judge(ratios: Sequence[float], bounds: Sequence[float]) -> Judged:
    """Judge mean ratios of successive rounds against their bounds."""
    shares = np.divide(ratios, bounds)
    changes = [change if abs(change) >= _SWING else 0.0 for change in np.diff(shares)]
    longest = turns = 1 if any(changes) else 0
    for before, after in pairwise(changes):
        turns = turns + 1 if before * after < 0 else 1
        longest = max(longest, turns)
    return Judged(tuple(bool(share > NEAR) for share in shares), longest >= _SWINGS)


def ratio_by_round(clients: pd.DataFrame) -> pd.DataFrame:
    """The mean ratio over clients and its bound, by round; empty where a run has no such term.

    Args:
        clients: Rows of clients.parquet.
    """
    if RATIO not in clients or clients[RATIO].isna().all():
        return pd.DataFrame(columns=["ratio", "bound"])
    weights = clients.loc[clients["outcome"] == "trained"].groupby("round")["weight"]
    bound = (weights.max() / weights.sum()).rename(lambda round_: round_ + 1)  # of the mean that the round begins with
    ratio = clients.groupby("round")[RATIO].mean().dropna()
    return pd.DataFrame({"ratio": ratio, "bound": bound}).dropna()


def term_warning(by_round: pd.DataFrame) -> str | None:
    """The warning about a term that switches itself off; None if it does not."""
    judged = judge(by_round["ratio"].tolist(), by_round["bound"].tolist())
    rounds = sum(judged.saturated)
    signs = [
        f"is above {NEAR:g} of its bound ({by_round['bound'].max():.3f}), where its gradient vanishes, in {rounds} of "
        f"{len(by_round)} rounds" if rounds else "",
        "alternates between high and low from round to round" if judged.alternates else "",
    ]  # fmt: skip
    reason = " and ".join(filter(None, signs))
    return f"the contrastive term switches itself off: its ratio {reason}" if reason else None
