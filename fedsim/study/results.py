"""A study's tables, made only from its run directories: results, learning curves, tuning and failures."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.algorithms.fedmri import FedMRI
from fedsim.analysis.comparison import interval
from fedsim.analysis.scores import (
    QUALITIES,
    costs_of,
    learning_curve,
    mean_over_sites,
    scores,
    site_means,
    volume_rows,
    volume_table,
)
from fedsim.analysis.timeline import PHASES, round_shares, timeline_of
from fedsim.engine.record.ending import is_trained
from fedsim.engine.record.ledger import read_table, write_table
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.study.bare_loop import floor_seconds
from fedsim.study.study import Pair, Point, StudyPlan
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
"""results.parquet: one row per point; ablations have another column for each axis, named by its dotted key.

Quality is that of the best round on the test split, mean over sites (`mean_over_sites`) of the `tested` clients; _low
and _high are the ends of its confidence interval over sites. seconds are those of all rounds, round_seconds is the
median round without the first, memory_bytes the peak of the private memory of driver and actors after a round,
driver_memory_bytes that of the driver. nodes, cores and floor_seconds (a round of the bare loop,
`fedsim.study.bare_loop`) belong to scaling studies. Shares are of the slots' time, without the first round. workload is
the frozen workload in the study's folder.
"""
CURVE_COLUMNS = ("regime", "method", "seed", "round", "psnr", "ssim", "bytes", "clients")
"""curves.parquet: one row per point and round; validation, mean over clients; bytes both ways so far, all clients.

With simulated time also virtual_s, when the round ended."""
TUNING_COLUMNS = ("regime", "method", "candidate", "settings", "psnr", "error", "chosen")
"""tuning.parquet: one row per candidate; validation PSNR of its best round, mean over sites (NaN: not finished)."""

_FAILED = "failed.parquet"
DIVERGED = "diverged: "
"""Beginning of the error line of a point with diverged training."""


def collect(plan: StudyPlan, folder: Path) -> None:
    """Rewrite results.parquet, volumes.parquet, curves.parquet and tuning.parquet from the study's runs."""
    failures = read_failures(folder)
    chosen = choose(plan, folder, failures)
    points = finished_points(plan, folder)
    axes = plan.study.axes_of(next(iter(plan.regimes)))
    columns = [*POINT_COLUMNS, *(axis for axis in axes if axis not in POINT_COLUMNS)]
    rows = [point_row(plan, point, Run(folder / point.folder)) for point in points]
    volumes = [
        row
        for point in points
        for row in volume_rows(Run(folder / point.folder), plan.study.name, point.regime, point.method, point.settings)
    ]
    curves = [curve for point in points if len(curve := _curve(point, folder))]
    write_table(folder / "results.parquet", pd.DataFrame(rows, columns=columns))
    write_table(folder / "volumes.parquet", volume_table(volumes))
    write_table(folder / "curves.parquet", pd.concat(curves) if curves else pd.DataFrame(columns=list(CURVE_COLUMNS)))
    tuning = pd.DataFrame(_tuning_rows(plan, folder, failures, chosen), columns=list(TUNING_COLUMNS))
    write_table(folder / "tuning.parquet", tuning)


def finished_points(plan: StudyPlan, folder: Path) -> list[Point]:
    """The finished points, without those of tuning."""
    chosen = choose(plan, folder, read_failures(folder))
    return [point for point in plan.finals(chosen) if is_finished(point, folder)]


def is_finished(point: Point, folder: Path) -> bool:
    """Whether a point has all its rounds and the evaluation of its best one."""
    path = folder / point.folder
    return bool(complete_rounds(path)) and is_trained(Run(path)) and len(scores(Run(path), point.part)) > 0


def choose(plan: StudyPlan, folder: Path, failures: Mapping[str, str]) -> dict[Pair, int]:
    """The candidate with the best validation PSNR, by (regime, method); pairs with unfinished tuning are missing."""
    tuning = plan.tuning()
    quality = {point.label: _tuning_psnr(point, folder, failures) for point in tuning}
    chosen: dict[Pair, int] = {}
    for regime, method in plan.pairs:
        where = (plan.tuned_in(regime), method)
        known = [quality[point.label] for point in tuning if (point.regime, point.method) == where]
        best = max((psnr for psnr in known if psnr is not None), default=0.0)
        if None not in known and best > -math.inf:
            chosen[regime, method] = known.index(best) if known else 0
    return chosen


def read_failures(folder: Path) -> dict[str, str]:
    """The error of each failed point, by its label."""
    path = folder / _FAILED
    return dict(read_table(path).itertuples(index=False, name=None)) if path.exists() else {}


def write_failures(folder: Path, failures: Mapping[str, str]) -> None:
    """Write the error of each failed point to failed.parquet."""
    write_table(folder / _FAILED, pd.DataFrame(list(failures.items()), columns=["point", "error"]))


def diverged(error: str) -> bool:
    """Whether an error line says that training diverged: for a tuning candidate this is a result, not a failure."""
    return error.startswith(DIVERGED)


def _tuning_psnr(point: Point, folder: Path, failures: Mapping[str, str]) -> float | None:
    """Validation PSNR of a tuning point, mean over sites; -inf if it diverged, None if it is not finished."""
    if is_finished(point, folder):
        psnr = mean_over_sites(scores(Run(folder / point.folder), point.part), "psnr")
        return -math.inf if math.isnan(psnr) else psnr
    return -math.inf if diverged(failures.get(point.label, "")) else None


def _tuning_rows(
    plan: StudyPlan, folder: Path, failures: Mapping[str, str], chosen: Mapping[Pair, int]
) -> Iterator[dict[str, Any]]:
    for point in plan.tuning():
        psnr = _tuning_psnr(point, folder, failures)
        yield {
            "regime": point.regime, "method": point.method, "candidate": point.candidate,
            "settings": json.dumps(point.settings), "psnr": psnr if psnr not in {None, -math.inf} else math.nan,
            "error": failures.get(point.label, ""),
            "chosen": chosen.get((point.regime, point.method)) == point.candidate,
        }  # fmt: skip


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
        "workload": str(point.folder / "workload.yaml"), **plan.study.axes_of(point.regime),
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
    return learning_curve(Run(folder / point.folder), regime=point.regime, method=point.method, seed=point.seed)
