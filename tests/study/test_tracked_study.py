"""A study in a tracker: an experiment with a run for the study and a child run for each point."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.engine.record.run_directory import Run
from fedsim.engine.tracking.tracking import tracked
from fedsim.study.runner import StudyResult
from fedsim.study.study import StudyPlan


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries of its reader
def test_the_points_of_a_study_are_children_of_its_run(
    plan_of: Callable[..., StudyPlan],
    run: Callable[..., StudyResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "tiny"
    plan = plan_of("set.trackers=[mlflow]", "seeds=[1]", methods={"single": {}, "fedavg": {}}, reference="fedavg")
    with tracked(plan.trackers, folder):
        assert not run(plan, folder).failed
        (folder / "figures").mkdir()
        (folder / "figures" / "quality.png").write_bytes(b"as the report draws it")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    found = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"tiny", "all/single/seed-1", "all/fedavg/seed-1"}
    parent = found.pop("tiny")
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["figures", "study.yaml"]
    for name, point in found.items():
        assert point.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert point.info.status == "FINISHED"
        assert point.data.metrics["rounds/loss"] == Run(folder / "runs" / name).rounds["loss"].iloc[-1]
