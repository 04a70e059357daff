"""A study's tables, made only from its run directories: results, learning curves, tuning and failures."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.algorithms.fedmri import FedMRI
from fedsim.analysis.comparison import interval
from fedsim.analysis.curves import learning_curve
from fedsim.analysis.scores import (
    QUALITIES,
    costs_of,
    mean_over_sites,
    scores,
    site_means,
    volume_rows,
    volume_table,
)
from fedsim.analysis.timeline import PHASES, round_shares, timeline_of
from fedsim.engine.record.ledger import write_table
from fedsim.engine.record.run_directory import Run
from fedsim.study.bare_loop import floor_seconds
from fedsim.study.choosing import choose, tuning_rows
from fedsim.study.ended import is_finished, read_failures
from fedsim.study.study import Point, StudyPlan
from fedsim.workload.schema import Workload

SHARES = (*PHASES, "idle")
_ENDS = ("low", "high")

POINT_COLUMNS = (
    "study", "kind", "point", "regime", "method", "algorithm", "seed", "nodes", "cores", "clients", "participants",
    "negatives", "rounds", "best_round", "steps", "train_subjects", "protocol", "normalise", *QUALITIES,
    *(f"zf_{quality}" for quality in QUALITIES), *(f"{quality}_{end}" for quality in QUALITIES for end in _ENDS),
    "tested", "seconds", "round_seconds", "uplink_bytes", "downlink_bytes", "memory_bytes", "driver_memory_bytes",
    "floor_seconds", *(f"{part}_share" for part in SHARES), "settings", "workload",
)  # fmt: skip
"""results.parquet: one row per point; ablations have another column for each axis, named by its dotted key
(text, where its values are neither all numbers nor all text), and studies with folds the column fold.

Quality is that of the best round on the test split, mean over sites (`mean_over_sites`) of the `tested` clients; _low
and _high are the ends of its confidence interval over sites. seconds are those of all rounds, round_seconds is the
median round without the first, memory_bytes the peak of the private memory of driver and actors after a round,
driver_memory_bytes that of the driver. nodes, cores and floor_seconds (a round of the bare loop,
`fedsim.study.bare_loop`) belong to scaling studies. Shares are of the slots' time, without the first round. workload is
the frozen workload in the study's folder.
"""
CURVE_COLUMNS = ("regime", "method", "seed", "round", "psnr", "ssim", "bytes", "clients")
"""curves.parquet: one row per point and round; validation, mean over clients; bytes both ways so far, all clients.

With simulated time also virtual_s, when the round ended; with folds also fold. Of methods that note them, means over
clients: contrastive_ratio with contrastive_bound, and discriminator_accuracy."""
TUNING_COLUMNS = (
    "regime", "method", "candidate", "settings", "psnr", "error", "state", "rounds", "core_hours", "chosen",
)  # fmt: skip
"""tuning.parquet: one row per candidate; validation PSNR of its best round, mean over sites (NaN: not finished).

state is finished, pruned, diverged, refused (error says why), or running (also if it has not begun, or failed).
core_hours are those of the cores that a candidate had, busy or not, in its rounds. With folds also fold.
"""


def collect(plan: StudyPlan, folder: Path) -> None:
    """Rewrite results.parquet, volumes.parquet, curves.parquet and tuning.parquet from the study's runs."""
    failures = read_failures(folder)
    chosen = choose(plan, folder, failures)
    points = finished_points(plan, folder)
    axes = plan.study.axes_of(next(iter(plan.regimes)))
    folds = ["fold"] if plan.study.folds else []
    columns = [*POINT_COLUMNS, *(axis for axis in axes if axis not in POINT_COLUMNS), *folds]
    rows = [point_row(plan, point, Run(folder / point.folder)) for point in points]
    volumes = [
        row
        for point in _whole(plan, points)
        for row in volume_rows(Run(folder / point.folder), plan.study.name, point.regime, point.method, point.settings)
    ]
    curves = [curve for point in points if len(curve := _curve(point, folder))]
    write_table(folder / "results.parquet", pd.DataFrame(rows, columns=columns))
    write_table(folder / "volumes.parquet", volume_table(volumes))
    write_table(folder / "curves.parquet", pd.concat(curves) if curves else pd.DataFrame(columns=list(CURVE_COLUMNS)))
    tuning = pd.DataFrame(tuning_rows(plan, folder, failures, chosen), columns=[*TUNING_COLUMNS, *folds])
    write_table(folder / "tuning.parquet", tuning)


def _whole(plan: StudyPlan, points: Sequence[Point]) -> list[Point]:
    """The points whose regime, method and seed have all folds: a mean over some would be one over other subjects."""
    folds = Counter((point.regime, point.method, point.seed) for point in points)
    return [point for point in points if folds[point.regime, point.method, point.seed] == (plan.study.folds or 1)]


def finished_points(plan: StudyPlan, folder: Path) -> list[Point]:
    """The finished points, without those of tuning."""
    chosen = choose(plan, folder, read_failures(folder))
    return [point for point in plan.finals(chosen) if is_finished(point, folder)]


def point_row(plan: StudyPlan, point: Point, run: Run) -> dict[str, Any]:
    """The row of results.parquet of a finished point."""
    workload, rounds, tested = run.workload, run.rounds, scores(run, "test")
    count = len(workload.client_names())
    later = rounds[rounds["round"] > 1] if len(rounds) > 1 else rounds
    quality = {name: mean_over_sites(tested, name) for name in (*QUALITIES, *(f"zf_{name}" for name in QUALITIES))}
    for name in QUALITIES:
        found = interval(site_means(tested, name).tolist())
        quality |= {f"{name}_low": found.low, f"{name}_high": found.high}
    return {
        "study": plan.study.name, "kind": plan.study.kind, "point": point.label, "regime": point.regime,
        "method": point.method, "algorithm": workload.algorithm.name, "seed": point.seed,
        "nodes": workload.engine.nodes, "cores": workload.engine.cores, "clients": count,
        "participants": workload.training.drawn(count), "negatives": negatives_of(workload),
        "tested": tested["client"].nunique(), "best_round": run.round("best"), "protocol": workload.protocol,
        "normalise": workload.federation.normalise, **quality, **costs_of(run),
        "round_seconds": float(later["seconds"].median()), "memory_bytes": int(rounds["memory_bytes"].max()),
        "driver_memory_bytes": rounds.get("driver_memory_bytes", pd.Series([math.nan])).max(),
        "floor_seconds": floor_seconds(run.path), **_shares(run), "settings": json.dumps(point.settings),
        "workload": str(point.folder / "workload.yaml"), **plan.study.axes_of(point.regime), "fold": point.fold,
    }  # fmt: skip


def negatives_of(workload: Workload) -> str | None:
    """The form of FedMRI's negatives; None without negatives."""
    method = workload.settled().algorithm
    return method.negatives if isinstance(method, FedMRI) and method.beta else None


def _shares(run: Run) -> dict[str, float]:
    """Where the slots' time went, without the first round; NaN if the ledger does not say."""
    timeline = timeline_of(run.rounds, run.clients)
    if timeline is None:
        return {}
    shares = round_shares(timeline)
    mean = shares[shares.index > 1].mean() if len(shares) > 1 else shares.mean()
    return {f"{part}_share": float(mean[part]) for part in SHARES}


def _curve(point: Point, folder: Path) -> pd.DataFrame:
    labels: dict[str, str | int] = {"regime": point.regime, "method": point.method, "seed": point.seed}
    if point.fold:
        labels["fold"] = point.fold
    return learning_curve(Run(folder / point.folder), **labels)
