"""Studies made up of tables, for the tests of figures and reports."""

import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from fedsim.workload.reading import write_yaml


def png(figure: Figure) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


# Studies made up of tables alone

REGIMES: dict[str, dict[str, dict[str, Any]]] = {
    "compare": {"all": {}, "few": {}},
    "client-count": {f"clients-{n}": {"clients": n} for n in (4, 16, 64)},
    "scaling-strong": {f"cores-{p}": {"cores": p} for p in (1, 2, 4)},
    "scaling-weak": {f"nodes-{p}": {"nodes": p} for p in (1, 2, 4)},
    "ablation": {
        f"beta-{beta}_norm-{norm}": {"algorithm.beta": beta, "model.norm": norm}
        for beta in (0.0, 1.0, 10.0)
        for norm in ("instance", "affine")
    },
}  # fmt: skip
"""What results.parquet has of each regime, by kind."""
SWEEPS: dict[str, dict[str, Any]] = {
    "compare": {"regimes": {"all": {}, "few": {"federation.split.train_subjects": 1}}},
    "client-count": {"clients": [4, 16, 64], "data": "per_client"},
    "scaling-strong": {"cores": [1, 2, 4]},
    "scaling-weak": {"nodes": [1, 2, 4], "clients": 4},
    "ablation": {"axes": {"algorithm.beta": [0.0, 1.0, 10.0], "model.norm": ["instance", "affine"]}},
}
"""What its study.yaml has of its kind."""
METHODS = {"fedavg": 0.0, "fedmri": 0.5}
"""Gain in PSNR."""


def seconds_of(kind: str, where: dict[str, Any]) -> float:
    """A round: a tenth of the work is serial."""
    workers = where.get("cores") or where.get("nodes") or 1
    return {"scaling-strong": 8 * (0.1 + 0.9 / workers), "scaling-weak": 8 * workers / (workers - 0.1 * (workers - 1)),
            "client-count": 0.02 * where.get("clients", 4)}.get(kind, 2.0)  # fmt: skip


def point_of(kind: str, regime: str, method: str, seed: int) -> dict[str, Any]:
    """A row like those of results.parquet."""
    where = REGIMES[kind][regime]
    at = list(REGIMES[kind]).index(regime) if not kind.startswith("scaling") else 0
    gain = METHODS[method] - 0.2 * at + 0.01 * seed * (at + 1)
    seconds = seconds_of(kind, where) * (1 + 0.02 * seed)
    qualities = {"psnr": 30 + seed + gain, "ssim": 0.8 + 0.01 * gain, "nmse": 0.1 - 0.01 * gain}
    count, form = where.get("clients", 4), None
    if method == "fedmri":
        form = "exact" if count < 50 else "moments"
    shares = dict(zip(("train", "evaluate", "load", "send", "idle"), (0.7, 0.1, 0.05, 0.05, 0.1), strict=True))
    return {
        "study": f"made-{kind}", "kind": kind, "point": f"{regime}/{method}/seed-{seed}", "regime": regime,
        "method": method, "algorithm": method, "seed": seed, "nodes": math.nan, "cores": math.nan, "clients": count,
        "participants": count, "negatives": form, "rounds": 5, "best_round": 5, "steps": 400.0, "train_subjects": 2.0,
        "protocol": "fastmri", "normalise": "std", **qualities, "zf_psnr": 25.0 + seed, "zf_ssim": 0.6, "zf_nmse": 0.2,
        "seconds": 5 * seconds, "round_seconds": seconds, "uplink_bytes": 5 * count * 400_000,
        "downlink_bytes": 5 * count * 600_000, "memory_bytes": 200_000_000 + 3_000_000 * count,
        "floor_seconds": 0.95 * seconds if kind.startswith("scaling") else math.nan,
        **{f"{name}_share": share for name, share in shares.items()}, "settings": "{}", "workload": "",
        **where,
    }  # fmt: skip


def volumes_of(point: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows like those of volumes.parquet, whose mean over sites is the point's."""
    same = ("study", "regime", "method", "algorithm", "seed", "protocol", "normalise", "rounds", "train_subjects",
            "ssim", "nmse", "zf_psnr", "zf_ssim", "zf_nmse")  # fmt: skip
    who = {"subject": f"s-{point['seed']}", "volume": "v", "round": 5, "acceleration": 3.1, "within_subject": False}
    return [
        {**{key: point[key] for key in same}, **who, "client": site, "site": site, "psnr": point["psnr"] + shift}
        for site, shift in (("A", -0.5), ("B", 0.5))
    ]  # fmt: skip


def curve_of(point: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows like those of curves.parquet; comparisons have simulated time."""
    time = {"virtual_s": 60.0 + point["seed"]} if point["kind"] == "compare" else {}
    return [
        {"regime": point["regime"], "method": point["method"], "seed": point["seed"], "round": round_,
         "psnr": point["psnr"] - 1 / round_, "ssim": 0.8, "bytes": 1_000_000 * round_, "clients": point["clients"],
         **{key: round_ * seconds for key, seconds in time.items()}}
        for round_ in range(1, 6)
    ]  # fmt: skip


@pytest.fixture(scope="session")
def made_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the folder of a study that has its tables, not its runs, as studies are kept with a paper."""

    def make(kind: str, seeds: int = 3) -> Path:
        folder = tmp_path_factory.mktemp(f"made-{kind}")
        points = [point_of(kind, r, m, seed) for seed in range(1, 1 + seeds) for r in REGIMES[kind] for m in METHODS]
        tables = {"results": points, "volumes": [v for p in points for v in volumes_of(p)],
                  "curves": [c for p in points for c in curve_of(p)]}  # fmt: skip
        for name, rows in tables.items():
            pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")
        sites = [{"name": name, "source": {"format": "phantom", "subjects": 4}} for name in ("A", "B")]
        base = {"name": "base", "federation": {"sites": sites}}
        study = {"name": f"made-{kind}", "kind": kind, "workload": "base.yaml", "seeds": list(range(1, 1 + seeds)),
                 "methods": {"fedavg": {}, "fedmri": {}}, **SWEEPS[kind]}  # fmt: skip
        (folder / "base.yaml").write_text(write_yaml(base))
        (folder / "study.yaml").write_text(write_yaml(study))
        return folder

    return make
