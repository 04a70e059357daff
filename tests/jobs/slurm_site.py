"""A SLURM site of Debian's slurmctld, slurmd and munged on this machine, and jobs for it."""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedsim.jobs.slurm import Slurm
from fedsim.jobs.target import Submission
from fedsim.workload.reading import write_yaml

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sbatch"
SITE = Path(__file__).with_name("slurm_site.sh")
CLIENTS = ("sbatch", "squeue", "scancel", "sacct", "sinfo", "scontrol")
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
NodeName=node[1-2] NodeAddr=10.77.0.[1-2] CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES
"""


def until(done: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """A site in a folder; its bin/ has the programs of SLURM as its login node would."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent or os.geteuid():
        pytest.skip(f"a SLURM site needs root and Debian's slurm-wlm and munge; absent: {', '.join(absent) or 'root'}")
    probe = ["unshare", *APART, "ip", "link", "add", "name", "probe", "type", "bridge"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine gives its processes no networks of their own")
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
    for name in (*CLIENTS, "control"):  # the last one runs a command there
        program = folder / "bin" / name
        found = shutil.which(name) or ""
        on_nodes = f'case $(hostname) in node*) exec {found} "$@" ;; esac'  # for jobs, which have this PATH
        there = f'exec nsenter --target {first.pid} --net --mount --uts --pid {found} "$@"'
        program.write_text(f"#!/bin/sh\n{on_nodes}\nSLURM_CONF={folder}/slurm.conf TMPDIR=/mnt {there}\n")
        program.chmod(0o755)
    sinfo = [str(folder / "bin" / "sinfo"), "--noheader", "--states=idle", "--format=%D"]
    idle = lambda: subprocess.run(sinfo, capture_output=True, text=True, check=False).stdout.strip() == "2"  # noqa: E731
    until(idle, f"no two nodes: see {folder}/site.log")
    return folder


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


def submission(folder: Path, rounds: int, name: str = "") -> Submission:
    arguments = ("run", "workload.yaml", "--out", str(folder / "run"), "--resume")
    files = {"workload.yaml": write_yaml(small(folder, rounds))}
    return Submission(
        id=f"fedsim-{name or folder.name.replace('_', '-')}", files=files, arguments=arguments, out=folder / "run"
    )


def files_of(run_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.glob("checkpoints/**/*.safetensors")}


def first_process(site: Path, node: int) -> int:
    """The process whose network and mounts are a node's."""
    command = ["bash", str(SITE), str(site), str(node)]
    return next(process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == command)


def on_node(site: Path, node: int, *command: object) -> list[str]:
    """A command as a node's root would give it."""
    enter = [f"--target={first_process(site, node)}", "--net", "--mount", "--uts", "--pid"]
    return ["nsenter", *enter, *map(str, command)]


def reboot(site: Path, node: int) -> None:
    """Kill all of a node's processes at once, as a power cut does; its slurmd starts again."""
    (unshare,) = psutil.Process(first_process(site, node)).children()
    (inner,) = unshare.children()
    inner.kill()


@contextmanager
def mounted(site: Path, node: int, source: Path, target: Path) -> Iterator[None]:
    """A node that finds something else at a path than the others do."""
    subprocess.run(on_node(site, node, "mount", "--bind", source, target), check=True)
    try:
        yield
    finally:
        subprocess.run(on_node(site, node, "umount", "--lazy", target), check=True)


def cable(site: Path, node: int, state: str) -> None:
    """Set the cable between a node and the others `up` or `down`."""
    command = [str(site / "bin" / "control"), "ip", "link", "set", f"cable{node}", state]
    subprocess.run(command, check=True)
