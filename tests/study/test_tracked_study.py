"""A study in a tracker: an experiment with a run for the study and a child run for each point."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.engine.record.run_directory import Run
from fedsim.engine.tracking import tracking
from fedsim.engine.tracking.tracking import tracked
from fedsim.study.runner import StudyResult
from fedsim.study.study import StudyPlan
from fedsim.workload.reading import write_yaml
from tests.conftest import Fedsim

from .conftest import study_content


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


ENDS = '''
from pathlib import Path
from fedsim.trackers.base import Tracker


class Ends(Tracker):
    """Writes how a run or a study ended."""

    _file: Path | None = None

    def begin(self, run):
        self._file = run.folder / "ended"

    def scalars(self, round_, values):
        pass

    def end(self, status, digest, figures):
        self._file.write_text(status)
'''


@pytest.mark.long
def test_a_study_with_a_failed_point_ends_as_failed(
    fedsim: Fedsim, home: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_S", 100.0)
    (home / "ends.py").write_text(ENDS)
    methods = {"single": {}, "fedavg": {"training.lr": 1e30}}
    keys = {"training.rounds": 2, "engine.backend": "serial", "trackers": ["ends:Ends"]}
    (home / "ends.yaml").write_text(write_yaml(study_content(seeds=[1], set=keys, methods=methods, reference="single")))
    status, _, err = fedsim("study", home / "ends.yaml", "--out", "out")
    assert (status, err.count("\n")) == (1, 1)
    assert (tmp_path / "out" / "ended").read_text() == "failed"
