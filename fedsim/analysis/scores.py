"""The numbers of single runs: test scores, costs, and the means that comparisons use."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedsim.core.errors import DamagedError, InputError
from fedsim.data.source import draws_subjects
from fedsim.data.split import Part
from fedsim.engine.record.run_directory import Run
from fedsim.mri.references import UNTRAINED

QUALITIES = ("psnr", "ssim", "nmse")
LOWER_IS_BETTER = {"nmse", "hfen", "roi_nmse"}
MORE_QUALITIES = ("hfen", "roi_psnr", "roi_ssim", "roi_nmse")
"""Of the test volumes alone: high frequencies, and what is inside the boxes of `metrics.boxes`."""
VOLUME_COLUMNS = (
    "study", "regime", "method", "algorithm", "seed", "client", "site", "subject", "volume", "round", "protocol",
    "normalise", "acceleration", "within_subject", "drawn", "nmse", "psnr", "ssim", "zf_nmse", "zf_psnr", "zf_ssim",
    "train_subjects", "rounds", "steps", "uplink_bytes_best", "downlink_bytes_best", "uplink_bytes", "downlink_bytes",
    "seconds", "settings",
)  # fmt: skip
"""volumes.parquet: one row per test volume of each point's best round; columns from train_subjects on are per point.

drawn: whether the seed decides who the site's subjects are, as of phantoms; equal names under two seeds are then two
people. train_subjects is the mean over clients; bytes are sums over clients, up to the best round and in total; steps
is NaN if the ledger does not count them; settings are those that tuning chose, as JSON.
"""
MORE_COLUMNS = (
    "fold", "effective_acceleration", *MORE_QUALITIES, *(f"zf_{quality}" for quality in MORE_QUALITIES),
    *(f"{prefix}_{quality}" for prefix in UNTRAINED if prefix != "zf" for quality in (*QUALITIES, *MORE_QUALITIES)),
)  # fmt: skip
"""Columns of studies with folds, of evaluations of other metrics, and of the references of `metrics.references`."""


def scores(run: Run, part: Part) -> pd.DataFrame:
    """The rows of evaluation.parquet for the run's best round and a part; none if it was not evaluated."""
    try:
        frame = run.evaluation
        return frame[(frame["round"] == run.round("best")) & (frame["split"] == part)]
    except DamagedError:
        raise
    except InputError:
        return pd.DataFrame()


def mean_over_sites(frame: pd.DataFrame, quality: str) -> float:
    """The mean over sites of means over clients and volumes; within-subject sites are left out, unless all are."""
    return float(site_means(frame, quality).mean())


def site_means(frame: pd.DataFrame, quality: str) -> "pd.Series[float]":
    """Each site's mean over clients and volumes; within-subject sites are left out, unless all are."""
    within = frame["within_subject"].astype(bool)
    counted = frame if within.all() else frame[~within]
    return counted.groupby("site")[quality].mean()


def volume_rows(
    run: Run, study: str, regime: str, method: str, settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The rows of volumes.parquet of a run; none if its best round was not evaluated on the test split."""
    folds = run.workload.federation.folds
    of_run = {"study": study, "regime": regime, "method": method, **costs_of(run), "settings": json.dumps(settings),
              "fold": folds.test if folds else None}  # fmt: skip
    tested, sites = scores(run, "test"), run.workload.federation.expanded_sites()
    drawn = {name: draws_subjects(sites.named(name).source, name) for name in set(tested.get("site", ()))}
    for row in tested.to_dict("records"):
        yield {**{str(key): value for key, value in row.items()}, "drawn": drawn[row["site"]], **of_run}


def costs_of(run: Run) -> dict[str, Any]:
    """The cost of a run: rounds, steps, bytes, seconds, and training subjects (mean over clients)."""
    rounds, manifest = run.rounds, run.manifest
    subjects = manifest[manifest["split"] == "train"].drop_duplicates(["client", "site", "subject"])
    until_best = rounds[rounds["round"] <= run.round("best")]
    sums = {f"{way}_bytes": int(rounds[f"{way}_bytes"].sum()) for way in ("uplink", "downlink")}
    sums_best = {f"{way}_bytes_best": int(until_best[f"{way}_bytes"].sum()) for way in ("uplink", "downlink")}
    steps = float(run.clients["steps"].sum()) if "steps" in run.clients else math.nan
    return {
        "train_subjects": float(subjects.groupby("client").size().mean()), "rounds": len(rounds),
        "steps": steps, **sums_best, **sums, "seconds": float(rounds["seconds"].sum()),
    }  # fmt: skip


def by_seed_at(points: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """A method's values: one row per value of `x`, one column per seed."""
    return points.pivot_table(index=x, columns="seed", values=y, dropna=False).dropna(how="all").sort_index()


def with_costs(points: pd.DataFrame) -> pd.DataFrame:
    """The points with costs to show, NaN where a table of an older fedsim lacks them.

    Per participant per round: `milliseconds`, and `megabytes` sent (`up`, `down`, and both). Of memory: `gigabytes` of
    all processes, and `driver_gigabytes`.
    """
    turns = points["rounds"] * points["participants"].fillna(points["clients"])
    up, down = (points[f"{way}_bytes"] / turns / 1e6 for way in ("uplink", "downlink"))
    memory = {
        name: points.get(column, pd.Series(np.nan, points.index)).astype(np.float64) / 1e9
        for name, column in (("gigabytes", "memory_bytes"), ("driver_gigabytes", "driver_memory_bytes"))
    }
    milliseconds = 1e3 * points["round_seconds"] * points["rounds"] / turns
    return points.assign(megabytes=up + down, up=up, down=down, milliseconds=milliseconds, **memory)


def switches(points: pd.DataFrame) -> list[str]:
    """The methods that use exact negatives at some points and moments at others."""
    forms = points.dropna(subset="negatives").groupby("method", sort=False)["negatives"].nunique()
    return [str(method) for method in forms.index[forms > 1]]


def axes_in(points: pd.DataFrame) -> list[str]:
    """The columns of results.parquet that are axes, dotted keys; of these the varied ones, once there are any."""
    keys = [str(column) for column in points if "." in str(column)]
    return [key for key in keys if points[key].map(str).nunique() > 1] or keys


def complete(points: pd.DataFrame) -> pd.DataFrame:
    """The points of methods and seeds with every combination, so that means over other axes are comparable."""
    done = points.groupby(["method", "seed"])["regime"].transform("nunique")
    return points[done == points["regime"].nunique()]


def along(points: pd.DataFrame, axis: str, base: Mapping[str, Any]) -> pd.DataFrame:
    """The points that show what an axis does.

    Args:
        points: Rows of results.parquet.
        axis: One of `axes_in`.
        base: Where one axis is varied at a time, the values at which the others stand: only points there are left.
    """
    others = [key for key in base if key != axis]
    stands = [points[key].isna() if base[key] is None else points[key] == base[key] for key in others]
    return complete(points[np.logical_and.reduce(stands)] if stands else points)


def volume_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table volumes.parquet of its rows."""
    frame = pd.DataFrame(rows, columns=[*VOLUME_COLUMNS, *MORE_COLUMNS])
    return frame.drop(columns=[name for name in MORE_COLUMNS if frame[name].isna().all()])


def qualities_in(volumes: pd.DataFrame) -> list[str]:
    """The qualities that a table of volumes has, the three that every evaluation has first."""
    return [*QUALITIES, *(name for name in MORE_QUALITIES if name in volumes and volumes[name].notna().any())]


def by_reconstruction(evaluation: pd.DataFrame, key: str) -> pd.DataFrame:
    """The qualities of every reconstruction that an evaluation has, those without training first, the network's last.

    Args:
        evaluation: Rows of one round and part.
        key: `client` or `site`: means over volumes, then over these.

    Returns:
        name, volumes (that the reconstruction suits, which may be fewer than all), and a column per quality.
    """
    rows, qualities = [], qualities_in(evaluation)
    for prefix, name in {**UNTRAINED, "": str(evaluation["algorithm"].iloc[0])}.items():
        begin = f"{prefix}_" if prefix else ""
        own = evaluation.reindex(columns=[key, *(f"{begin}{quality}" for quality in qualities)])
        count = int(own[f"{begin}psnr"].count())
        if count:
            means = own.groupby(key).mean().mean()
            rows.append(
                {"name": name, "volumes": count, **{quality: means[f"{begin}{quality}"] for quality in qualities}}
            )
    return pd.DataFrame(rows)
