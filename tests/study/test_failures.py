"""Points that fail are named and the others finish; a study that is stopped or killed loses nothing."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.study.runner import StudyResult
from fedsim.study.study import StudyPlan
from fedsim.workload.reading import write_yaml
from tests.conftest import COMMAND, Fedsim

from .conftest import assert_same_results, results, study_content


@pytest.mark.slow
def test_a_failed_point_is_named_the_others_finish_and_it_is_tried_again(
    finished: Path, plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    blocked = folder / "runs" / "all" / "fedavg" / "seed-2"
    run(plan_of(seeds=[1], methods={"fedmri": {"algorithm.beta": 1}}), folder)
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    done = run(plan_of(), folder)
    assert [line.partition(":")[0] for line in done.failed] == ["all/fedavg/seed-2"]
    assert "is a file" in done.failed[0]
    assert list(pd.read_parquet(folder / "failed.parquet")["point"]) == ["all/fedavg/seed-2"]
    assert len(results(folder)) == len(results(finished)) - 2
    blocked.unlink()
    assert not run(plan_of(), folder).failed
    assert not len(pd.read_parquet(folder / "failed.parquet"))
    assert_same_results(finished, folder)


def test_a_point_whose_process_dies_is_a_failed_point(
    plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], home: Path, tmp_path: Path
) -> None:
    """The method is a user's own: its file travels with the study."""
    (home / "dying.py").write_text(
        "import os\nfrom fedsim.algorithms.fedavg import FedAvg\n\n"
        "class Dying(FedAvg):\n    name: str = 'dying:Dying'\n"
        "    def train(self, learner, received, phase):\n        os._exit(3)\n"
    )
    methods = {"fedmri": {"algorithm.beta": 1}, "dying": {"algorithm.name": "dying:Dying"}}
    (line,) = run(plan_of(methods=methods, seeds=[1]), tmp_path / "out").failed
    assert line.startswith("all/dying/seed-1: WorkerCrashedError: ")
    assert set(results(tmp_path / "out")["method"]) == {"fedmri"}
    assert (tmp_path / "out" / "dying.py").exists()


@pytest.mark.slow
def test_what_points_warn_of_is_said_once(
    plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(plan_of(methods={"fedmri": {"training.batch_size": 9}}), tmp_path / "out")
    (text,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert text.startswith("all/fedmri/seed-")
    assert "the contrastive term cannot act" in text


def test_failures_give_status_1_and_their_names(fedsim: Fedsim, home: Path, tmp_path: Path, ray_session: None) -> None:
    (home / "wild.yaml").write_text(write_yaml(study_content(seeds=[1])))
    status, out, err = fedsim("study", home / "wild.yaml", "--set", "methods.fedavg.training.lr=1e30", "--out", "out")
    assert status == 1
    assert err.startswith("fedsim: 1 failed, the rest are done; all/fedavg/seed-1: diverged: client A, round 1: the")
    assert err.count("\n") == 1
    assert "points 3/3" in out
    assert "mean over sites" in out
    assert set(results(tmp_path / "out")["method"]) == {"single", "fedmri"}


@pytest.mark.long
def test_ctrl_c_stops_the_points_with_checkpoints(home: Path, tmp_path: Path) -> None:
    keys = {"engine.backend": "serial", "training.rounds": 600, "engine.checkpoint_every": 500}
    (home / "long.yaml").write_text(write_yaml(study_content(seeds=[1], set=keys)))
    out = tmp_path / "out"
    command = [
        *COMMAND,
        "study",
        home / "long.yaml",
        "--out",
        out,
    ]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    ledgers: list[Path] = []
    while not any(len(pd.read_parquet(path)) >= 3 for path in ledgers) and time.monotonic() < deadline:
        time.sleep(0.05)
        ledgers = list(out.glob("runs/*/*/*/rounds.parquet"))
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the whole foreground group
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err.decode()
    assert b"resume with: fedsim study" in err
    reached = [complete_rounds(path.parent) for path in out.glob("runs/*/*/*/rounds.parquet")]
    assert all(len(rounds) == 1 and rounds[0] < 500 for rounds in reached), "where they were, not on schedule"


@pytest.mark.long
def test_a_killed_study_finishes_only_what_was_missing(home: Path, finished: Path, tmp_path: Path) -> None:
    (home / "killed.yaml").write_text(write_yaml(study_content()))
    out = tmp_path / "out"
    command = [
        *COMMAND,
        "study",
        home / "killed.yaml",
        "--out",
        out,
    ]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("points 2/6"))
        os.killpg(process.pid, signal.SIGKILL)
    assert line
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/*/evaluation.parquet")}
    assert 2 <= len(before) < 6
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250)
    (left,) = map(int, re.findall(r"^points 1/(\d)", again.stdout, re.MULTILINE))
    assert 0 < left <= 6 - len(before), "one may have ended beside, before its process was gone too"
    assert f"points {left}/{left} " in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done is left alone"
    assert_same_results(out, finished)
