"""An array through the command line: submitted, listed, followed, waited for, stopped, fetched, and submitted again."""

import shutil
from pathlib import Path

import pytest

from fedsim.engine.simulation import run
from fedsim.jobs.array import together
from fedsim.jobs.slurm import Slurm
from fedsim.jobs.submission import Job, prepare_array
from fedsim.jobs.target import Status
from fedsim.workload.reading import load_workload

from .arrays import LABELS, SCRIPT, folder_of, queued, sent, site, study  # noqa: F401 - fixtures too
from .conftest import Fedsim

# ruff: noqa: F811 - the fixtures


def test_lines_are_shown_after_their_points(sent: Job, site: Path, state: Path, fedsim: Fedsim) -> None:
    queued(site, *(f"17|{task}|COMPLETED|None" for task in (1, 2, 3, 4)))
    (folder_of(state, sent, 1) / "output.txt").write_bytes("round 1/2  Größe\nround 2/2".encode())
    (folder_of(state, sent, 3) / "output.txt").write_text("fedsim: wrong\n")
    for more in ([], ["--follow"]):
        status, out, _ = fedsim("jobs", "logs", "few", *more)
        assert status == 0
        assert out.splitlines() == [
            f"{LABELS[0]}: round 1/2  Größe", f"{LABELS[0]}: round 2/2", f"{LABELS[2]}: fedsim: wrong"
        ]  # fmt: skip


def test_stopping_cancels_what_waits_before_what_runs_is_told(sent: Job, site: Path) -> None:
    queued(
        site,
        "17|1|COMPLETED|None",
        "17|2|RUNNING|None",
        "17|3|PENDING|JobArrayTaskLimit",
        "17|4|RUNNING|None",
        "9|4|FAILED|x",
    )
    Slurm("slurm", SCRIPT).stop(sent.submission.id)
    assert (site / "cancelled").read_text() == "17_3\n--batch --signal=TERM 17_2 17_4\n"


@pytest.mark.long
def test_finished_points_are_not_sent_again(site: Path, study: Path, tmp_path: Path, fedsim: Fedsim) -> None:
    """The others keep their numbers; when none is left there is no job."""
    serial = ["set.engine.backend=serial"]
    (job,), begin = prepare_array(study, serial, None, None)
    begin()
    first = tmp_path / "studies" / "few" / "runs" / LABELS[0]
    (tmp_path / "workload.yaml").write_text(job.submission.tasks[1].files["workload.yaml"])
    run(load_workload(tmp_path / "workload.yaml"), first)
    (again,), _ = prepare_array(study, serial, None, None)
    assert again.submission.id == job.submission.id
    assert list(again.submission.tasks) == [2, 3, 4]
    for label in LABELS[1:]:
        other = tmp_path / "studies" / "few" / "runs" / label
        shutil.copytree(first, other)
    assert prepare_array(study, serial, None, None)[0] == []
    status, _, err = fedsim("submit", study, "--cluster", "slurm", "--array", "--set", *serial)
    assert (status, err.splitlines()[0]) == (0, "every point has finished already")
    assert not (site / "sbatch.given").exists()


@pytest.mark.slow
def test_through_the_command_line(fedsim: Fedsim, site: Path, study: Path, state: Path, tmp_path: Path) -> None:
    command = ("submit", study, "--cluster", "slurm", "--array", "--at-once", "2")
    before = set(tmp_path.rglob("*"))
    status, out, _ = fedsim(*command, "--dry-run")
    made = {path for path in set(tmp_path.rglob("*")) - before if site not in path.parents}
    assert (status, "--array=1-4%2" in out, made) == (0, True, set())
    status, _, err = fedsim(*command)
    assert status == 0, err
    assert "submitted to slurm, in " in err
    assert "makes tables and report" in err
    queued(site, "17|1|RUNNING|None", *(f"17|{task}|PENDING|None" for task in (2, 3, 4)))
    (site / "sbatch.given").unlink()
    status, _, err = fedsim(*command)
    assert (status, "is running already" in err, (site / "sbatch.given").exists()) == (0, True, False)
    status, out, _ = fedsim("jobs", "list")
    assert "running: 0 of 4 points done, 1 running" in out
    queued(site, *(f"17|{task}|CANCELLED|None" for task in (1, 2, 3, 4)))
    status, _, err = fedsim("jobs", "wait", "few")
    assert (status, err.count("\n")) == (1, 1)
    assert ": stopped: 4 of 4 points stopped: " in err
    status, _, err = fedsim(*command)
    assert (status, "submitted to slurm" in err) == (0, True), "stopped ones are sent again"
    queued(site, *(f"17|{task}|COMPLETED|None" for task in (1, 2, 3, 4)))
    assert fedsim("jobs", "fetch", "few", "--to", "fetched")[0] == 0
    assert (tmp_path / "fetched" / "study.yaml").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cluster", "slurm", "--array", "--per-point"], "--array: submits the points as tasks of one job,"),
        (["--cluster", "http://127.0.0.1:9", "--array"], "--array: http://127.0.0.1:9 is not SLURM"),
        (["--cluster", "slurm", "--at-once", "3"], "--at-once: is for the tasks of --array, which is missing"),
        (["--cluster", "slurm", "--array", "--set", "set.engine.backend=serial"], "engine.backend: serial runs in one"),
        (["--cluster", "slurm", "--array", "--set", "tune={seed: 9, grid: {training.lr: [0.1, 0.2]}}"],
         "tune: its points depend on the tuning; leave out --array"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(fedsim: Fedsim, site: Path, study: Path, options: list[str], said: str) -> None:
    status, out, err = fedsim("submit", study, *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (site / "sbatch.given").exists()


def test_only_a_study_is_an_array(fedsim: Fedsim, site: Path, workload: Path) -> None:
    status, _, err = fedsim("submit", workload, "--cluster", "slurm", "--array")
    assert (status, err) == (2, f"fedsim: --array: {workload} is a workload; only a study has points\n")


def test_many_that_failed_are_some_names() -> None:
    statuses = {f"p{number}": Status("failed", "x") for number in range(20)}
    assert together(statuses).reason.startswith("20 of 20 points failed: p0: x; also p1, ")
    assert together(statuses).reason.endswith(", p10 and 9 more")
