"""A tiny workload, the command line in this process, and a cluster of three raylets that no user's state meets."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fedsim.jobs.slurm import Slurm

from . import slurm_site

Fedsim = Callable[..., tuple[int, str, str]]

SCRIPT = Path(__file__).parents[2] / "clusters" / "local.sh"
TINY = """
name: tiny
seed: 5
federation:
  cache: {cache}
  clients: 3
  matrix: [32, 32]
  sites:
    - {{name: A, source: {{format: phantom, subjects: 4, slices: 2, size: 32}}}}
    - {{name: B, source: {{format: phantom, subjects: 3, slices: 2, size: 32, contrast: t2}}}}
model: {{channels: 2, pools: 1}}
training: {{rounds: 2, batch_size: 1, lr: 1.0e-3}}
engine: {{keep_last: 9}}
"""


class Cluster(NamedTuple):
    """A local cluster that is up."""

    state: Path
    url: str
    token: Path


def script(state: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "FEDSIM_STATE": str(state), **environment}
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def workload(tmp_path: Path, cache: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(cache=cache))
    return path


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder and a home of the test's own."""
    for key in [key for key in os.environ if key.startswith("RAY_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FEDSIM_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def brought_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    state = tmp_path_factory.mktemp("state")
    ups = (script(state, "up", "3") for _ in range(3))  # Ray gives a node 30 s, too few where all cores are busy
    try:
        up = next((up for up in ups if not up.returncode), None) or script(state, "up", "3")
        assert up.returncode == 0, up.stderr
        url, token = script(state, "address").stdout.splitlines()
        yield Cluster(state, url, Path(token))
    finally:
        script(state, "down")


@pytest.fixture
def cluster(brought_up: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The module's cluster, as this test's `--cluster local`; receipts of other tests are there too."""
    monkeypatch.setenv("FEDSIM_STATE", str(brought_up.state))
    return brought_up


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a SLURM site."""
    with slurm_site.running(tmp_path_factory.mktemp("slurm")) as folder:
        yield folder


@pytest.fixture
def slurm(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """The project's script, edited for the site."""
    monkeypatch.setenv("PATH", f"{site / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FEDSIM_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("fedsim.jobs.slurm._LOOK_EVERY_S", 0.2)
    return slurm_site.edited(tmp_path)
