"""SLURM for real: Debian's slurmctld, slurmd and munged, a site of two nodes on this machine."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedsim.core.errors import RunError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.jobs.slurm import Slurm
from fedsim.jobs.submission import prepare_array
from fedsim.jobs.target import Status, Submission
from fedsim.workload.reading import load_workload, write_yaml

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sbatch"
ROUNDS = 150  # of some tenths of a second each
LISTEN = "0A"
LOOPBACK, LOOPBACK_6 = "0100007F", "0" * 24 + "01000000"
LOOPBACK_4_IN_6 = "0" * 16 + "FFFF0000" + LOOPBACK
SITE = Path(__file__).with_name("slurm_site.sh")
CLIENTS = ("sbatch", "squeue", "scancel", "sacct", "sinfo")
PROGRAMS = ("munged", "slurmctld", "slurmd", "unshare", "nsenter", "ip", *CLIENTS)
APART = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
HOSTS = "127.0.0.1 localhost\n10.77.0.254 control\n10.77.0.1 node1\n10.77.0.2 node2\n"
CONF = """ClusterName=test
SlurmctldHost=control
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
NodeName=node[1-2] CPUs=1 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES
"""


def until(done: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a site; its bin/ has the programs of SLURM as its login node would."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent or os.geteuid():
        pytest.skip(f"a SLURM site needs root and Debian's slurm-wlm and munge; absent: {', '.join(absent) or 'root'}")
    probe = ["unshare", *APART, "ip", "link", "add", "name", "probe", "type", "bridge"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine gives its processes no networks of their own")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "bin"):
        (folder / name).mkdir()
    (folder / "hosts").write_text(HOSTS)
    (folder / "slurm.conf").write_text(CONF.format(folder=folder))
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    command = ["unshare", *APART, "bash", str(SITE), str(folder)]
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    with (
        (folder / "site.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as it,
    ):
        try:
            yield ready(folder, it.pid)
        finally:
            processes = psutil.Process(it.pid).children(recursive=True)
            it.kill()
            psutil.wait_procs(processes, timeout=30)
            assert not [process for process in processes if process.is_running()]


def ready(folder: Path, pid: int) -> Path:
    until(lambda: psutil.Process(pid).children(), "no first process")
    (first,) = psutil.Process(pid).children()
    for name in CLIENTS:
        program = folder / "bin" / name
        enter = f"nsenter --target {first.pid} --net --mount --uts --pid"
        program.write_text(
            f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf TMPDIR=/mnt exec {enter} {shutil.which(name)} "$@"\n'
        )
        program.chmod(0o755)
    sinfo = [str(folder / "bin" / "sinfo"), "--noheader", "--states=idle", "--format=%D"]
    idle = lambda: subprocess.run(sinfo, capture_output=True, text=True, check=False).stdout.strip() == "2"  # noqa: E731
    until(idle, f"no two nodes: see {folder}/site.log")
    return folder


@pytest.fixture
def slurm(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """The project's script, edited for the site."""
    monkeypatch.setenv("PATH", f"{site / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FEDSIM_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("fedsim.jobs.slurm._LOOK_EVERY_S", 0.2)
    return edited(tmp_path)


def edited(folder: Path, nodes: str = "--nodes=2", memory: str = "3G") -> Slurm:
    text = SCRIPT.read_text()
    for old, new in {"--nodes=2": nodes, "-task=16": "-task=1", "mem=60G": f"mem={memory}"}.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "slurm.sbatch").write_text(text)
    return Slurm("slurm", folder / "slurm.sbatch")


def small(folder: Path, rounds: int) -> dict[str, Any]:
    source = {"format": "phantom", "subjects": 3, "slices": 2, "size": 32}
    return {
        "name": "small",
        "federation": {
            "cache": str(folder / "cache"), "matrix": [32, 32], "split": {"train": 0.4, "val": 0.3, "test": 0.3},
            "sites": [{"name": name, "source": source} for name in "AB"],
        },
        "model": {"channels": 2, "pools": 1}, "training": {"rounds": rounds, "batch_size": 1},
    }  # fmt: skip


def submission(folder: Path, rounds: int) -> Submission:
    arguments = ("run", "workload.yaml", "--out", str(folder / "run"), "--resume")
    files = {"workload.yaml": write_yaml(small(folder, rounds))}
    return Submission(
        id=f"fedsim-{folder.name.replace('_', '-')}", files=files, arguments=arguments, out=folder / "run"
    )


def files_of(run_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.glob("checkpoints/**/*.safetensors")}


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
