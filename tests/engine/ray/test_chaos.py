"""Kill anything, lose nothing: the finished run is the run that would have been, bit for bit."""

from pathlib import Path

import pytest

from fedsim.engine.record.run_directory import Run
from tests.engine.conftest import assert_same

from . import chaos
from .raylets import cluster

pytestmark = pytest.mark.ray


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chaos.write_workload(tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="session")
def undisturbed(workload: Path) -> Run:
    whole = chaos.undisturbed(workload, workload.parent / "undisturbed")
    assert len(list(whole.path.glob("checkpoints/*/clients/*.safetensors"))) == chaos.ROUNDS * chaos.CLIENTS
    return whole


def survives(workload: Path, whole: Run, out: Path, seed: int, victims: list[str], most: int = 3) -> None:
    if "raylet" in victims:
        with cluster() as (home, environment):
            history = chaos.disturbed(workload, out, seed, victims, home, environment, most)
    else:
        history = chaos.disturbed(workload, out, seed, victims, most=most)
    assert any("nobody" not in blow for blow in history[1:]), "nothing was hit"
    assert_same(whole, Run(out))


@pytest.mark.long
@pytest.mark.parametrize(("seed", "victims"), [(1, ["actor"]), (9, ["raylet"])])
def test_whatever_dies(workload: Path, undisturbed: Run, tmp_path: Path, seed: int, victims: list[str]) -> None:
    survives(workload, undisturbed, tmp_path / "run", seed, victims, most=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(50))
def test_whatever_dies_fifty_times(workload: Path, undisturbed: Run, tmp_path: Path, seed: int) -> None:
    victims = [
        ["actor", "adder", "driver"],
        ["adder", "actor"],
        ["actor", "adder", "driver", "raylet"],
        ["driver"],
        ["raylet", "adder", "actor"],
    ]
    survives(workload, undisturbed, tmp_path / "run", 100 + seed, victims[seed % len(victims)])
