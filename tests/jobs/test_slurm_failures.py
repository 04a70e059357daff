"""What goes wrong on real SLURM sites, provoked on one: jobs survive it, or end with one line that says what to do."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fedsim
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.jobs.slurm import Slurm
from fedsim.jobs.target import Status
from fedsim.workload.reading import load_workload, write_yaml

from .slurm_site import cable, edited, files_of, mounted, on_node, reboot, small, submission, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PROGRAMS = Path(sys.executable).parent
PACKAGE = Path(fedsim.__file__).parent
LISTENS = """
import socket, sys
taken = [socket.create_server(("0.0.0.0", start + job)) for start in (10000, 20000) for job in range(1, 60)]
print(len(taken), flush=True)
sys.stdin.read()
"""


def assert_as_here(folder: Path, rounds: int) -> None:
    """The job's run has the bits of an undisturbed one."""
    (folder / "small.yaml").write_text(write_yaml(small(folder, rounds)))
    here = run(load_workload(folder / "small.yaml", ["engine.backend=serial"]), folder / "here")
    assert files_of(folder / "run") == files_of(here.path) != {}
    assert len(Run(folder / "run").rounds) == rounds


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def log_of(slurm: Slurm, job: str) -> str:
    return "".join(slurm.logs(job, follow=False))


def start_now(slurm: Slurm, state: Path, job: str) -> None:
    """Do not have a requeued job wait for the minutes that SLURM gives its node to recover."""
    number = (state / "slurm" / job / "job").read_text().strip()
    until(lambda: slurm.status(job).state == "pending", "it was not requeued", seconds=120)
    subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True)


def test_a_preempted_job_that_is_requeued_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    """SLURM sends SIGTERM to all of its processes, then SIGKILL, and starts the script anew under the same number."""
    slurm, job = edited(tmp_path, "--nodes=1"), submission(tmp_path, rounds=60)
    slurm.submit(job)
    until(lambda: files_of(tmp_path / "run"), "no round in time", seconds=300)
    number = (tmp_path / "state" / "slurm" / job.id / "job").read_text().strip()
    subprocess.run(["scontrol", "requeue", number], check=True)
    start_now(slurm, tmp_path / "state", job.id)
    assert slurm.wait(job.id) == Status("succeeded"), log_of(slurm, job.id)
    assert "resumes after round" in (tmp_path / "run" / "log.txt").read_text()
    assert_as_here(tmp_path, rounds=60)


def test_a_job_whose_head_node_dies_is_requeued_and_goes_on(slurm: Slurm, site: Path, tmp_path: Path) -> None:
    job = submission(tmp_path, rounds=60)
    slurm.submit(job)
    until(lambda: files_of(tmp_path / "run"), "no round in time", seconds=300)
    reboot(site, 1)
    start_now(slurm, tmp_path / "state", job.id)
    assert slurm.wait(job.id) == Status("succeeded"), log_of(slurm, job.id)
    assert "resumes after round" in (tmp_path / "run" / "log.txt").read_text()
    assert_as_here(tmp_path, rounds=60)


def test_two_jobs_share_a_node(slurm: Slurm, tmp_path: Path) -> None:
    """The end of one leaves the other, and its Ray, alone."""
    slurm = edited(tmp_path, "--nodes=1\n#SBATCH --nodelist=node1", memory="1900M")
    for name in ("short", "long"):
        (tmp_path / name).mkdir()
    short, long = submission(tmp_path / "short", rounds=20), submission(tmp_path / "long", rounds=9999)
    for job in (long, short):
        slurm.submit(job)
    assert slurm.wait(short.id) == Status("succeeded"), log_of(slurm, short.id)
    done = max(complete_rounds(long.out), default=0)
    until(lambda: max(complete_rounds(long.out), default=0) > done, "it does not go on", seconds=300)
    assert slurm.status(long.id) == Status("running"), log_of(slurm, long.id)
    slurm.stop(long.id)
    assert slurm.wait(long.id) == Status("stopped"), log_of(slurm, long.id)
    assert set(Run(short.out).clients["node"]) == set(Run(long.out).clients["node"]) == {"node1"}
    assert_as_here(tmp_path / "short", rounds=20)


@pytest.mark.parametrize("absent", ["fedsim", "ray"])
def test_a_node_without_the_environment_is_named(
    slurm: Slurm, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    shutil.copytree(PROGRAMS, tmp_path / "bin", symlinks=True, ignore=shutil.ignore_patterns(absent))
    monkeypatch.setenv("PATH", f"{site / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin")
    job = submission(tmp_path, rounds=1)
    with mounted(site, 2, tmp_path / "bin", PROGRAMS):
        slurm.submit(job)
        status = slurm.wait(job.id)
    assert status.state == "failed"
    assert status.reason.startswith(f"it was not started: node2 has no {absent} at the places in PATH; install"), status
    assert not (tmp_path / "run").exists()


def test_a_node_with_another_fedsim_is_named(slurm: Slurm, site: Path, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "other", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "other" / "mri" / "masks.py").open("a") as file:
        file.write("# of next week\n")
    job = submission(tmp_path, rounds=1)
    with mounted(site, 2, tmp_path / "other", PACKAGE):
        slurm.submit(job)
        status = slurm.wait(job.id)
    said = "node node2 has another fedsim than the driver (other files of the same version); install the same on all"
    assert status.state == "failed"
    assert status.reason.startswith(said), status


def test_a_node_that_joins_late_is_waited_for(slurm: Slurm, site: Path, tmp_path: Path) -> None:
    late = program(tmp_path / "ray", f'sleep 8; exec {sys.executable} -m ray.scripts.scripts "$@"')
    job = submission(tmp_path, rounds=2)
    with mounted(site, 2, late, PROGRAMS / "ray"):
        slurm.submit(job)
        assert slurm.wait(job.id) == Status("succeeded"), log_of(slurm, job.id)
    assert_as_here(tmp_path, rounds=2)


def test_a_job_that_is_stopped_before_all_nodes_have_joined_does_not_begin(
    slurm: Slurm, site: Path, tmp_path: Path
) -> None:
    came = tmp_path / "came"
    job = submission(tmp_path, rounds=2)
    with mounted(site, 2, program(tmp_path / "ray", f"touch {came}; sleep 5; exit 1"), PROGRAMS / "ray"):
        slurm.submit(job)
        until(came.exists, "the second node has not begun", seconds=120)
        slurm.stop(job.id)
        assert slurm.wait(job.id) == Status("stopped"), log_of(slurm, job.id)
    assert "it was not started" not in log_of(slurm, job.id)
    assert not (tmp_path / "run").exists()
    for node in (1, 2):
        left = subprocess.run(on_node(site, node, "ls", "/mnt"), capture_output=True, text=True, check=True)
        assert "fedsim" not in left.stdout


def test_a_node_that_never_joins_ends_the_job_with_the_names_of_those_that_did(
    slurm: Slurm, site: Path, tmp_path: Path
) -> None:
    script = slurm.path.read_text()
    assert "WAIT_S=120" in script
    slurm.path.write_text(script.replace("WAIT_S=120", "WAIT_S=40"))
    job = submission(tmp_path, rounds=1)
    with mounted(site, 2, program(tmp_path / "ray", "sleep 90"), PROGRAMS / "ray"):
        slurm.submit(job)
        status = slurm.wait(job.id)
    said = "it was not started: node1 has been joined by 1 of 2 nodes in 40 s: node1; above is what Ray said"
    assert status.state == "failed"
    assert status.reason.startswith(said), status


HOLDS = """
import pathlib, socket, sys, time
taken = socket.create_server(("", int(sys.argv[1])))
while pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.2)
"""
# What the first `ray start` of a job meets. By then the script has chosen a port.
TAKEN = f"""
    port=$(grep -o -- '--port=[0-9]*' <<<"$*" | cut -d= -f2)
    setsid --fork {sys.executable} -c '{HOLDS}' $port $begun
    until (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.1; done
"""


@pytest.mark.parametrize("first", [pytest.param(TAKEN, id="port"), pytest.param("exit 1", id="exit")])
def test_a_ray_that_does_not_start_is_started_again(slurm: Slurm, site: Path, tmp_path: Path, first: str) -> None:
    begun = tmp_path / "begun"
    text = f'begun={begun}; if mkdir $begun; then\n{first}\nfi\nexec {sys.executable} -m ray.scripts.scripts "$@"'
    job = submission(tmp_path, rounds=2)
    with mounted(site, 1, program(tmp_path / "ray", text), PROGRAMS / "ray"):
        slurm.submit(job)
        assert slurm.wait(job.id) == Status("succeeded"), log_of(slurm, job.id)
    begun.rmdir()  # which ends the program that holds the port
    assert_as_here(tmp_path, rounds=2)


@contextmanager
def taken_ports(site: Path) -> Iterator[None]:
    """Programs of other users on both nodes, at the ports of the next fifty jobs."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    listening = [subprocess.Popen(on_node(site, node, sys.executable, "-c", LISTENS), **pipes) for node in (1, 2)]
    try:
        for one in listening:
            assert one.stdout is not None
            assert one.stdout.readline() == "118\n"
        yield
    finally:
        for one in listening:
            one.communicate()


def test_taken_ports_a_tiny_shared_memory_and_odd_paths_do_not_matter(
    slurm: Slurm, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Größe 50%jobs" / "模拟"
    folder.mkdir(parents=True)
    monkeypatch.setenv("FEDSIM_STATE", str(folder / "state"))
    job = submission(folder, rounds=2, name="odd")
    try:
        for node in (1, 2):
            subprocess.run(on_node(site, node, "mount", "-o", "remount,size=8m", "/dev/shm"), check=True)
        with taken_ports(site):
            slurm.submit(job)
            assert slurm.wait(job.id) == Status("succeeded"), log_of(slurm, job.id)
    finally:
        for node in (1, 2):
            subprocess.run(on_node(site, node, "mount", "-o", "remount,size=50%", "/dev/shm"), check=True)
    assert "round 2/2" in log_of(slurm, job.id)
    assert_as_here(folder, rounds=2)


def test_nodes_with_names_of_ipv6_alone(slurm: Slurm, site: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n10.77.0.254 control\nfd77::1 node1\nfd77::2 node2\n")
    for node in (1, 2):
        command = on_node(site, node, "ip", "-6", "address", "replace", f"fd77::{node}/64", "dev", "eth0", "nodad")
        subprocess.run(command, check=True)
    job = submission(tmp_path, rounds=2)
    with mounted(site, 1, hosts, Path("/etc/hosts")), mounted(site, 2, hosts, Path("/etc/hosts")):
        slurm.submit(job)
        status = slurm.wait(job.id)
    assert status.state == "failed"
    assert status.reason == "node1 has no address for the other nodes; see getent ahostsv4 node1"


@pytest.mark.parametrize("lost", [1, 2])
def test_a_node_that_loses_its_network_is_done_without(slurm: Slurm, site: Path, tmp_path: Path, lost: int) -> None:
    """Of the driver's node, the other one is lost."""
    job = submission(tmp_path, rounds=60)
    slurm.submit(job)
    until(lambda: files_of(tmp_path / "run"), "no round in time", seconds=300)
    cable(site, lost, "down")
    try:
        said = tmp_path / "run" / "failures.parquet"
        until(said.exists, "nothing was noticed", seconds=200)
        time.sleep(1)
    finally:
        cable(site, lost, "up")
    assert slurm.wait(job.id) == Status("succeeded"), log_of(slurm, job.id)
    assert "a process was lost" in log_of(slurm, job.id)
    assert_as_here(tmp_path, rounds=60)
