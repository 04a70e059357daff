"""submit, wait and collect, as a script uses them; test_sweep.py has a real cluster."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import fedsim
from fedsim.core.errors import InputError, RunError
from fedsim.engine.simulation import Simulation
from fedsim.jobs import library
from fedsim.jobs.kept import keep
from fedsim.jobs.target import Status
from fedsim.workload.reading import load_workload

from .conftest import SCRIPT
from .test_submission import Nodes

SWEEP = SCRIPT.parents[1] / "workloads" / "sweep.py"


class Here(Nodes):
    """A cluster that runs a job in this process as soon as it has it; one with a learning rate above 1 fails."""

    def submit(self, submission: Any) -> None:
        super().submit(submission)
        folder = submission.out.parent / f"{submission.out.name}-files"
        folder.mkdir(parents=True)
        (folder / "workload.yaml").write_text(submission.files["workload.yaml"])
        workload = load_workload(folder / "workload.yaml", ["engine.backend=serial", "training.rounds=1"])
        if workload.training.lr > 1:
            keep(submission.id, Status("failed", "lr: is wrong"), "")
            return
        with Simulation(workload, submission.out) as simulation:
            simulation.run()
            simulation.evaluate()
        keep(submission.id, Status("succeeded"), "")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    cluster = Here("http://127.0.0.1:9", "http://127.0.0.1:9")
    monkeypatch.setattr(library, "find_target", lambda _: cluster)
    return cluster


@pytest.mark.slow
def test_jobs_are_submitted_waited_for_and_collected(workload: Path, tmp_path: Path, here: Here) -> None:
    jobs = [
        fedsim.submit(workload, "x", {"training.lr": lr, "federation.matrix": [32, 32]}, tmp_path / f"lr-{lr}")
        for lr in (1e-3, 1e-2)
    ]
    fedsim.wait(jobs)
    table = fedsim.collect(jobs)
    assert [job.state for job in jobs] == ["succeeded", "succeeded"]
    assert set(table["training.lr"]) == {1e-3, 1e-2}
    assert set(table["federation.matrix"]) == {"[32, 32]"}
    assert len(table) == 2 * len(fedsim.collect(jobs[0]))
    again = fedsim.submit(workload, "x", ["training.lr=1e-3", "federation.matrix=[32, 32]"], tmp_path / "lr-0.001")
    assert (again.id, len(here.sent)) == (jobs[0].id, 2), "nothing is run twice"


@pytest.mark.slow
def test_a_job_that_failed_is_named_when_all_have_ended(workload: Path, tmp_path: Path) -> None:
    good = fedsim.submit(workload, "x", out=tmp_path / "good")
    bad = fedsim.submit(workload, "x", ["training.lr=2"], tmp_path / "bad")
    with pytest.raises(RunError, match=f"{bad.id}: failed lr: is wrong"):
        fedsim.wait([bad, good])
    fedsim.wait(good)
    with pytest.raises(InputError, match=f"is not on this machine; copy it here with: fedsim jobs fetch {bad.id}"):
        fedsim.collect([good, bad])


@pytest.mark.slow
def test_a_sweep_takes_any_axes(
    workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--workload", str(workload), "--out", str(tmp_path / "sweep")]
    axes = ["--set-axis", "training.lr=1e-4,1e-3", "--set-axis", "federation.matrix=[32, 32],[16, 32]"]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments, *axes])
    runpy.run_path(str(SWEEP), run_name="__main__")
    assert "training.lr federation.matrix" in " ".join(capsys.readouterr().out.split())
    assert {path.name for path in (tmp_path / "sweep").iterdir() if not path.name.endswith("-files")} == {
        "sweep.parquet", *(f"training.lr={lr}_federation.matrix={matrix}" for lr in ("1e-4", "1e-3")
                           for matrix in ("-32-32-", "-16-32-"))
    }  # fmt: skip
    private = [line for line in SWEEP.read_text().splitlines() if line.startswith(("from fedsim", "import fedsim"))]
    assert private == ["import fedsim"]
