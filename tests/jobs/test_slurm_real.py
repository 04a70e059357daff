"""SLURM for real: Debian's slurmctld, slurmd and munged, a site of two nodes on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fedsim.core.errors import RunError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.jobs.slurm import Slurm
from fedsim.jobs.submission import prepare_array
from fedsim.jobs.target import Status
from fedsim.workload.reading import load_workload, write_yaml

from .slurm_site import SITE, edited, files_of, small, submission, until

ROUNDS = 150  # of some tenths of a second each
LISTEN = "0A"
LOOPBACK, LOOPBACK_6 = "0100007F", "0" * 24 + "01000000"
LOOPBACK_4_IN_6 = "0" * 16 + "FFFF0000" + LOOPBACK


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_job_on_two_nodes_gives_the_bits_of_a_run_here(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(write_yaml(small(tmp_path, rounds=2)))
    command = ["fedsim", "submit", "small.yaml", "--cluster", str(slurm.path), "--out", "run", "--wait"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    first, again = (
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        for _ in range(2)
    )
    assert first.returncode == again.returncode == 0, first.stderr
    assert "round 2/2" in first.stdout
    assert "is done already" in again.stderr
    done = Run(tmp_path / "run")
    here = run(load_workload(tmp_path / "small.yaml", ["engine.backend=serial"]), tmp_path / "here")
    assert files_of(done.path) == files_of(here.path) != {}
    assert set(done.clients["node"]) == {"node1", "node2"}  # both took part
    assert left_behind(tmp_path) == {"job", "output.txt", "ray-node1.txt", "ray-node2.txt", "status", "workload.yaml"}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_stopped_job_writes_a_checkpoint_and_is_gone_on_with(slurm: Slurm, site: Path, tmp_path: Path) -> None:
    slurm = edited(tmp_path, "--nodes=1")
    job = submission(tmp_path, rounds=ROUNDS)
    slurm.submit(job)
    until(lambda: files_of(tmp_path / "run"), "no round in time", seconds=120)
    assert {LOOPBACK} <= listening(site) <= {LOOPBACK, LOOPBACK_6, LOOPBACK_4_IN_6}
    assert slurm.status(job.id) == Status("running")
    token = tmp_path / "state" / "slurm" / job.id / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    slurm.stop(job.id)
    assert slurm.wait(job.id) == Status("stopped")
    assert left_behind(tmp_path) == {"job", "output.txt", "ray-node1.txt", "status", "workload.yaml"}
    stopped = Run(tmp_path / "run")
    assert stopped.round("last") == len(stopped.rounds) < ROUNDS
    slurm.submit(job)
    assert slurm.wait(job.id) == Status("succeeded")
    assert len(Run(tmp_path / "run").rounds) == ROUNDS


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_array_whose_tasks_end_apart(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three points, one at a time; one is cancelled while it waits and, submitted again, is the only one that runs."""
    monkeypatch.chdir(tmp_path)
    slurm = edited(tmp_path, "--nodes=1")
    study = {"name": "few", "workload": "small.yaml", "seeds": [1, 2, 3], "methods": {"fedavg": {}}}
    for name, content in {"small.yaml": small(tmp_path, rounds=1), "few.yaml": study}.items():
        (tmp_path / name).write_text(write_yaml(content))
    (job,), begin = prepare_array(tmp_path / "few.yaml", [], None, at_once=1)
    begin()
    slurm.submit(job.submission)
    labels = [task.label for task in job.submission.tasks.values()]
    until(lambda: slurm.status(job.submission.id).state == "running", "no task has begun")
    assert slurm.status(job.submission.id).reason == "0 of 3 points done, 1 running"
    number = (tmp_path / "state" / "slurm" / job.submission.id / "3" / "job").read_text().strip()
    subprocess.run(["scancel", f"{number}_3"], check=True)
    until(lambda: with_walltime(tmp_path), "no fedsim that knows its time", seconds=300)
    assert slurm.wait(job.submission.id) == Status("stopped", f"1 of 3 points stopped: {labels[2]}")
    lines = "".join(slurm.logs(job.submission.id, follow=False)).splitlines()
    assert {line.partition(": ")[0] for line in lines} == {*labels[:2]}
    assert any("round 1/1" in line for line in lines)
    (again,), _ = prepare_array(tmp_path / "few.yaml", [], None, at_once=1)
    assert (again.submission.id, list(again.submission.tasks)) == (job.submission.id, [3])
    slurm.submit(again.submission)
    assert slurm.wait(job.submission.id) == Status("succeeded")
    assert prepare_array(tmp_path / "few.yaml", [], None, None)[0] == []


def with_walltime(folder: Path) -> list[str]:
    """The time that a fedsim of the folder has, below the four hours that the script asks for."""
    lines = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
    ours = [line for line in lines if "--walltime" in line and any(word.startswith(str(folder)) for word in line)]
    return [line[line.index("--walltime") + 1] for line in ours if line[-1].startswith("3:")]


def test_a_job_that_waits_is_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    slurm = edited(tmp_path, "--nodes=2\n#SBATCH --begin=now+1hour")
    job = submission(tmp_path, rounds=1)
    slurm.submit(job)
    assert slurm.status(job.id) == Status("pending", "BeginTime")
    slurm.stop(job.id)
    assert slurm.wait(job.id) == Status("stopped")
    assert not (tmp_path / "run").exists()


def test_what_sbatch_refuses_is_said_in_one_line(slurm: Slurm, tmp_path: Path) -> None:
    slurm = edited(tmp_path, "--nodse=2")
    with pytest.raises(RunError, match="unrecognized option '--nodse=2'"):
        slurm.submit(submission(tmp_path, rounds=1))
    assert slurm.status(submission(tmp_path, rounds=1).id) == Status("unknown")
    slurm = edited(tmp_path, memory="5G")
    with pytest.raises(RunError, match="Memory specification can not be satisfied"):
        slurm.submit(submission(tmp_path, rounds=1))


def test_a_job_that_slurm_has_forgotten_is_known_by_what_it_left(slurm: Slurm, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "slurm" / "fedsim-old-1"
    folder.mkdir(parents=True)
    assert slurm.status("fedsim-old-1") == Status("unknown")
    (folder / "job").write_text("7\n")
    (folder / "output.txt").write_text("round 1\nfedsim: workload.yaml: seed: must be a number\n")
    assert slurm.status("fedsim-old-1") == Status("failed", "workload.yaml: seed: must be a number")
    for code, state in {"0": "succeeded", "130": "stopped", "2": "failed"}.items():
        (folder / "status").write_text(f"{code}\n")
        assert slurm.status("fedsim-old-1").state == state


def listening(site: Path) -> set[str]:
    """Addresses that Ray and fedsim listen at, on any node; SLURM's own programs listen to each other."""
    (whole,) = (
        one for one in psutil.process_iter() if one.cmdline()[-2:] == [str(SITE), str(site)] and "unshare" in one.name()
    )
    ours = [one for one in whole.children(recursive=True) if not one.name().startswith(("slurm", "srun"))]
    return {address for one in ours for address in listening_of(Path(f"/proc/{one.pid}"))}


def listening_of(process: Path) -> set[str]:
    """As the kernel writes them, by the tables of the network that the process is in."""
    try:
        mine = {str(link.readlink()) for link in (process / "fd").iterdir()}
        lines = [
            line.split() for name in ("tcp", "tcp6") for line in (process / "net" / name).read_text().splitlines()[1:]
        ]
    except OSError:  # it has ended
        return set()
    return {line[1].split(":")[0] for line in lines if line[3] == LISTEN and f"socket:[{line[9]}]" in mine}


def left_behind(folder: Path) -> set[str]:
    return {path.name for path in (folder / "state" / "slurm").glob("*/*")}
