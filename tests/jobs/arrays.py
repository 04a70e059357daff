"""A study as an array of a SLURM made of stand-ins: what its programs are given and what they answer lie in files."""

from pathlib import Path

import pytest

from fedsim.jobs.receipts import write_receipt
from fedsim.jobs.slurm import Slurm
from fedsim.jobs.submission import Job
from fedsim.jobs.target import Submission, Task
from fedsim.workload.reading import write_yaml

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sbatch"
STUDY = {"name": "few", "kind": "client-count", "clients": [2, 3], "workload": "tiny.yaml", "seeds": [1, 2],
         "methods": {"fedavg": {}}}  # fmt: skip
LABELS = [f"clients-{count}/fedavg/seed-{seed}" for seed in (1, 2) for count in (2, 3)]
# sbatch keeps its arguments; squeue and sacct answer from files; scancel keeps what it is given.
PROGRAMS = {
    "sbatch": "printf '%s\\n' \"$@\" > {0}/sbatch.given; echo 17",
    "squeue": "printf '%s\\n' \"$@\" > {0}/squeue.given; cat {0}/queue",
    "sacct": "printf '%s\\n' \"$@\" > {0}/sacct.given; cat {0}/accounting",
    "scancel": 'echo "$@" >> {0}/cancelled',
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with SLURM's programs, and what they are given and answer."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name, does in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{does.format(folder)}\n")
        (folder / name).chmod(0o755)
    for name in ("queue", "accounting"):
        (folder / name).touch()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def study(workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert workload.name == STUDY["workload"]
    (tmp_path / "few.yaml").write_text(write_yaml(STUDY))
    return tmp_path / "few.yaml"


@pytest.fixture
def sent(site: Path, tmp_path: Path) -> Job:
    """An array of four points that SLURM has as job 17."""
    whole = tmp_path / "studies" / "few"
    whole.mkdir(parents=True)
    out = {label: str(whole / "runs" / label) for label in LABELS}
    tasks = {
        number: Task(label=label, files={}, arguments=("run", "workload.yaml", "--resume", "--out", out[label]))
        for number, label in enumerate(LABELS, start=1)
    }
    array = Submission(id="fedsim-few-0a1b", files={}, arguments=(), out=whole, tasks=tasks)
    job = Job(submission=array, name="few", kind="array", workloads=())
    Slurm("slurm", SCRIPT).submit(array)
    write_receipt(Slurm("slurm", SCRIPT), job)
    return job


def folder_of(state: Path, job: Job, number: int) -> Path:
    return state / "slurm" / job.submission.id / str(number)


def queued(site: Path, *tasks: str) -> None:
    """What squeue says: NUMBER|TASK|STATE|REASON."""
    (site / "queue").write_text("".join(f"{task}\n" for task in tasks))
