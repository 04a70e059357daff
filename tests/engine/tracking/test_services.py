"""TensorBoard, MLflow and Weights & Biases: what their own readers give back of a run."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedsim.engine.record.run_directory import Run
from fedsim.engine.tracking import tracking
from fedsim.engine.tracking.tracking import tracked
from fedsim.workload.schema import Workload

from .test_tracking import Simulate, digest, scalars_of

Series = dict[str, list[tuple[int, float]]]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time on a busy machine, and no settings of whoever runs the tests."""
    monkeypatch.setattr(tracking, "PATIENCE_S", 200.0)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def series_of(run: Run, kind: Callable[[float], Any] = float) -> Series:
    """The ledger by scalar: round and value."""
    found: Series = {}
    for round_, values in scalars_of(run).items():
        for key, value in values.items():
            found.setdefault(key, []).append((round_, kind(value)))
    return found


def interrupted(simulate: Simulate, out: Path, tracker: str) -> Run:
    """A run that stopped after its first round, and went on."""
    stops = iter([False, True])
    simulate(f"trackers=[{tracker}]", out=out, stop=lambda: next(stops))
    return simulate(f"trackers=[{tracker}]", out=out, resume=True)


def with_figure(workload: Workload, folder: Path) -> None:
    """Tell its trackers once more, when there is a report."""
    (folder / "figures").mkdir()
    Image.new("RGBA", (4, 3)).save(folder / "figures" / "quality.png")
    with tracked(workload.trackers, folder):
        pass


@pytest.mark.slow
def test_tensorboard_gives_back_the_ledger_as_float32(
    simulate: Simulate, workload: Callable[..., Workload], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = interrupted(simulate, tmp_path / "run", "tensorboard")
    with_figure(workload("trackers=[tensorboard]"), run.path)
    read = EventAccumulator(str(run.path), size_guidance={"tensors": 0, "scalars": 0})
    read.Reload()
    tags = read.Tags()
    found = {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in tags["scalars"]}
    assert found == series_of(run, lambda value: float(np.float32(value)))
    texts = {tag: read.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
    assert texts["digest"].strip() == digest(run)
    assert "name: small" in texts["workload"]
    assert tags["images"] == ["figures/quality"]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries of its reader
def test_mlflow_gives_back_the_ledger(simulate: Simulate, workload: Callable[..., Workload], tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run = interrupted(simulate, tmp_path / "run", "mlflow")
    with_figure(workload("trackers=[mlflow]"), run.path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    read = {
        key: sorted((point.step, point.value) for point in client.get_metric_history(found.info.run_id, key))
        for key in found.data.metrics
    }
    assert read == series_of(run)
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.tags["digest"] == digest(run)
    assert found.data.params["training.rounds"] == "3"
    artifacts = [file.path for place in (None, "figures") for file in client.list_artifacts(found.info.run_id, place)]
    assert artifacts == ["figures", "workload.yaml", "figures/quality.png"]


@pytest.mark.long
def test_wandb_gives_back_the_ledger_from_its_offline_folders(
    simulate: Simulate, workload: Callable[..., Workload], tmp_path: Path
) -> None:
    run = interrupted(simulate, tmp_path / "run", "wandb")
    with_figure(workload("trackers=[wandb]"), run.path)
    rows, summary = [], {}
    for file in sorted(run.path.glob("wandb/offline-run-*/*.wandb")):
        command = [sys.executable, "-m", "wandb", "beta", "leet", "inspect", "--json", str(file)]
        records = subprocess.run(
            command, env={**os.environ, "WANDB_ERROR_REPORTING": "false"}, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for record in map(json.loads, records):
            rows += [record["history"]["item"]] if "history" in record else []
            summary |= _summary(record)
    assert Counter(row["_step"] for row in rows) == {1: 1, 2: 1, 3: 1}
    found = {row["_step"]: {key: x for key, x in row.items() if not key.startswith("_")} for row in rows}
    assert found == scalars_of(run)
    assert summary["digest"] == digest(run)
    assert summary["figures/quality"]["_type"] == "image-file"
    assert len({file.name for file in run.path.glob("wandb/offline-run-*/*.wandb")}) == 1, "one run, told three times"


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = record.get("summary", {}).get("update", {})
    return found
