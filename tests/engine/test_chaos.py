"""Kill anything, lose nothing: the finished run is the run that would have been, bit for bit."""

import logging
from pathlib import Path

import pytest

from fedsim.engine.rundir import Run

from . import chaos
from .conftest import assert_same

log = logging.getLogger("chaos")


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chaos.write_workload(tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="session")
def undisturbed(workload: Path) -> Run:
    whole = chaos.undisturbed(workload, workload.parent / "undisturbed")
    assert len(list(whole.path.glob("checkpoints/*/clients/*.safetensors"))) == chaos.ROUNDS * chaos.CLIENTS
    return whole


def survives(workload: Path, whole: Run, out: Path, seed: int, victims: list[str]) -> None:
    if "raylet" in victims:
        with chaos.cluster() as (home, environment):
            history = chaos.disturbed(workload, out, seed, victims, home, environment)
    else:
        history = chaos.disturbed(workload, out, seed, victims)
    log.info("seed %d: %s", seed, ", ".join(history))
    assert len(history) > 1, "nothing was hit"
    assert_same(whole, Run(out))


@pytest.mark.parametrize(("seed", "victims"), [(0, ["actor"]), (1, ["driver"]), (2, ["raylet"])])
def test_whatever_dies(workload: Path, undisturbed: Run, tmp_path: Path, seed: int, victims: list[str]) -> None:
    survives(workload, undisturbed, tmp_path / "run", seed, victims)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(50))
def test_whatever_dies_fifty_times(workload: Path, undisturbed: Run, tmp_path: Path, seed: int) -> None:
    victims = [["actor", "driver"], ["actor"], ["actor", "driver", "raylet"], ["driver"], ["raylet", "actor"]][seed % 5]
    survives(workload, undisturbed, tmp_path / "run", 100 + seed, victims)
