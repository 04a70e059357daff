"""A study in a tracker: an experiment with a run for the study and a child run for each point."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsim.core.errors import WriteError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.tracking import tracking
from fedsim.engine.tracking.tracking import tracked
from fedsim.jobs.array import files_of
from fedsim.jobs.submission import prepare_array
from fedsim.study import runner
from fedsim.study.runner import StudyResult
from fedsim.study.study import StudyPlan
from fedsim.workload.reading import write_yaml
from tests.conftest import COMMAND, Fedsim

from .conftest import study_content


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time on a busy machine, and no settings of whoever runs the tests."""
    monkeypatch.setattr(tracking, "PATIENCE_S", 100.0)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries of its reader
def test_the_points_of_a_study_are_children_of_its_run(
    plan_of: Callable[..., StudyPlan],
    run: Callable[..., StudyResult],
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

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


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries of its reader
def test_points_that_fedsim_run_trains_are_children_of_the_study_too(
    fedsim: Fedsim, home: Path, tmp_path: Path, ray_session: None
) -> None:
    from mlflow import MlflowClient

    file, folder = tmp_path / "tiny.yaml", tmp_path / "tiny"
    keys = {"training.rounds": 2, "engine.backend": "serial", "trackers": ["mlflow"]}
    methods: dict[str, Any] = {"single": {}, "fedavg": {}}
    content = study_content(workload=str(home / "small.yaml"), seeds=[1], set=keys, methods=methods, reference="single")
    file.write_text(write_yaml(content))
    (job,), begin = prepare_array(file, [], folder, None)
    begin()
    tasks = []
    for number, task in job.submission.tasks.items():
        (at := tmp_path / str(number)).mkdir()
        for name, text in files_of(task).items():
            (at / name).write_text(str(text))
        tasks.append(subprocess.Popen([*COMMAND, *task.arguments], cwd=at))
    assert [task.wait() for task in tasks] == [0, 0]
    assert fedsim("study", file, "--out", folder)[0] == 0
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    assert {one.name for one in client.search_experiments()} - {"Default"} == {"tiny"}
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    parents = [one for one in found if "mlflow.parentRunId" not in one.data.tags]
    assert [one.info.run_name for one in parents] == ["tiny"]
    children = {one.info.run_name: one for one in found if one not in parents}
    assert set(children) == {"all/single/seed-1", "all/fedavg/seed-1"}
    for child in children.values():
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert [point.step for point in client.get_metric_history(child.info.run_id, "rounds/loss")] == [1, 2]
    assert {one.info.status for one in found} == {"FINISHED"}


ENDS = '''
import os
from pathlib import Path
from fedsim.trackers.base import Tracker


class Ends(Tracker):
    """Writes the rounds of a run, and how it or a study ended."""

    dies: bool = False
    _folder: Path | None = None

    def begin(self, run):
        self._folder = run.folder

    def scalars(self, round_, values):
        if self.dies and round_ == 2:
            os._exit(1)
        with (self._folder / "rounds").open("a") as file:
            file.write(f"{round_} ")

    def end(self, status, digest, figures):
        with (self._folder / "ended").open("a") as file:
            file.write(status)
'''


@pytest.fixture
def study_file(home: Path) -> Callable[..., Path]:
    """Writes a study with the tracker above; keys are those of the study."""
    (home / "ends.py").write_text(ENDS)

    def write(**keys: Any) -> Path:
        settings = {"training.rounds": 2, "engine.backend": "serial", "trackers": ["ends:Ends"]}
        (home / "ends.yaml").write_text(write_yaml(study_content(**{"seeds": [1], "set": settings, **keys})))
        return home / "ends.yaml"

    return write


@pytest.mark.long
def test_a_study_that_is_run_again_tells_a_lost_tracker_of_a_finished_point_the_rest(
    fedsim: Fedsim, study_file: Callable[..., Path], tmp_path: Path, ray_session: None
) -> None:
    file, point = study_file(methods={"fedavg": {}}, reference="fedavg"), tmp_path / "out" / "runs/all/fedavg/seed-1"
    dying = 'set.trackers=[{name: "ends:Ends", dies: true}]'
    assert fedsim("study", file, "--out", "out", "--set", dying)[0] == 0
    assert (point / "rounds").read_text() == "1 "
    for _ in range(2):
        assert fedsim("study", file, "--out", "out")[0] == 0
        assert (point / "rounds").read_text() == "1 2 "
        assert (point / "ended").read_text() == "finished", "told once"


@pytest.mark.long
def test_a_study_that_ends_by_an_error_says_so_unless_it_never_began(
    fedsim: Fedsim, study_file: Callable[..., Path], tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise WriteError("the disk is full")

    monkeypatch.setattr(runner, "collect", full)
    keys: dict[str, Any] = {"methods": {"fedavg": {}}, "reference": "fedavg"}
    assert fedsim("study", study_file(**keys), "--out", "out")[0] == 1
    assert (tmp_path / "out" / "ended").read_text() == "failed"
    status, _, err = fedsim("study", study_file(name="other", **keys), "--out", "out")
    assert (status, "name: was" in err) == (2, True)
    assert (tmp_path / "out" / "ended").read_text() == "failed", "another study does not end this one"


@pytest.mark.long
def test_a_study_with_a_failed_point_ends_as_failed(
    fedsim: Fedsim, study_file: Callable[..., Path], tmp_path: Path, ray_session: None
) -> None:
    methods = {"single": {}, "fedavg": {"training.lr": 1e30}}
    status, _, err = fedsim("study", study_file(methods=methods, reference="single"), "--out", "out")
    assert (status, err.count("\n")) == (1, 1)
    assert (tmp_path / "out" / "ended").read_text() == "failed"
