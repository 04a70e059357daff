"""Learning curves: validation by round, what a method notes beside it, and whether training was over at its end."""

import math

import numpy as np
import pandas as pd

from fedsim.engine.record.run_directory import Run
from fedsim.engine.record.term import RATIO, ratio_by_round

ACCURACY = "discriminator_accuracy"
"""Of clients.parquet, and of curves.parquet its mean over clients."""
BOUND = "contrastive_bound"
"""Of curves.parquet: the largest value that the contrastive ratio of a round can have."""
FLAT = 0.05
"""Gain of the last fifth of the rounds [dB] below which a curve is flat."""
RUN = ["regime", "method", "seed", "fold"]
"""Columns of curves.parquet that tell runs apart; fold only of studies with folds."""


def learning_curve(run: Run, **labels: str | int) -> pd.DataFrame:
    """Rows of curves.parquet: validation by round, with the labels as first columns."""
    rounds, clients = run.rounds, run.clients
    term, accuracy = ratio_by_round(clients), accuracy_by_round(clients)
    noted = {RATIO: term["ratio"], BOUND: term["bound"], ACCURACY: accuracy}
    return pd.DataFrame({
        **labels, "round": rounds["round"], "psnr": rounds["psnr"], "ssim": rounds["ssim"],
        "bytes": (rounds["uplink_bytes"] + rounds["downlink_bytes"]).cumsum(),
        "clients": len(run.workload.client_names()),
        **({"virtual_s": rounds["virtual_s"]} if "virtual_s" in rounds else {}),
        **{name: rounds["round"].map(values) for name, values in noted.items() if len(values)},
    })  # fmt: skip


def accuracy_by_round(clients: pd.DataFrame) -> "pd.Series[float]":
    """The mean accuracy over clients of FL-MRCM's discriminators, by round; empty where a run has none.

    Args:
        clients: Rows of clients.parquet.
    """
    if ACCURACY not in clients:
        return pd.Series(dtype=float)
    return clients.groupby("round")[ACCURACY].mean().dropna()


def by_run(curves: pd.DataFrame) -> list[str]:
    """The columns that tell the runs of a study apart."""
    return [key for key in RUN if key in curves]


def late_gains(curves: pd.DataFrame) -> pd.DataFrame:
    """By how much the last fifth of the rounds raised the best validation PSNR: mean over seeds and folds.

    The best, because the best round is what is tested; it cannot fall, so noise counts as gain and never as flatness.

    Args:
        curves: Rows of curves.parquet.

    Returns:
        One row per regime and method: regime, method, runs, gain [dB]; NaN where too few rounds were scored.
    """
    keys = by_run(curves)
    rows = [{**dict(zip(keys, run, strict=True)), "gain": _late_gain(own)} for run, own in curves.groupby(keys)]
    runs = pd.DataFrame(rows, columns=[*keys, "gain"])
    groups = runs.groupby(["regime", "method"], sort=False)["gain"]
    found = groups.agg(runs="count", gain="mean").reindex(_in_order(curves))
    return found.reset_index()


def _in_order(curves: pd.DataFrame) -> pd.MultiIndex:
    """Regimes and methods as they come in the curves."""
    return pd.MultiIndex.from_frame(curves[["regime", "method"]].drop_duplicates())


def _late_gain(own: pd.DataFrame) -> float:
    last = int(own["round"].max())
    before = own.loc[own["round"] <= last - math.ceil(last / 5), "psnr"].max()
    return float(own["psnr"].max() - before) if own.loc[own["round"] == last, "psnr"].notna().any() else np.nan
