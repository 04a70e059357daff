"""Law 1 on a GPU: the same workload gives the same bits, whatever the placement and the way that steps are taken."""

import logging
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import torch

from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, read_yaml, write_yaml

from .conftest import assert_same, tensors, written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
Simulate = Callable[..., Run]
KEYS = ("engine.device=cuda", "federation.clients=6", "model.channels=16", "training.rounds=2")
FUSED, EAGER, ONE_ROUND = "training.fuse=4", "engine.graphs=false", "training.rounds=1"
RAY = ("engine.backend=ray", "engine.device=auto")


@pytest.fixture
def on_gpu(simulate: Simulate) -> Simulate:
    """Runs the engine's small workload with six clients on the GPU."""
    return lambda *overrides, **keys: simulate(*KEYS, *overrides, **keys)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    """In one process, one client after the other. Read it, do not write to it."""
    folder = tmp_path_factory.mktemp("gpu")
    return run(load_workload(written(folder, cache), list(KEYS)), folder / "run")


@pytest.fixture(scope="session")
def fused(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    """In one process, four clients as one network. Read it, do not write to it."""
    folder = tmp_path_factory.mktemp("gpu")
    return run(load_workload(written(folder, cache), [*KEYS, FUSED]), folder / "run")


def test_clients_have_trained_there(alone: Run) -> None:
    assert set(alone.clients["device"]) == {"cuda"}
    provenance = alone.workload.provenance or {}
    assert torch.cuda.get_device_name() in provenance["gpu"]
    assert provenance["cuda"] == torch.version.cuda
    assert provenance["kernel_choice"] == "deterministic"


# Wherever clients are


@pytest.mark.usefixtures("ray_session")
def test_an_actor_for_each_client(on_gpu: Simulate, alone: Run) -> None:
    run = on_gpu(*RAY)
    assert run.clients["pid"].nunique() > 1
    assert_same(alone, run)


@pytest.mark.usefixtures("ray_session")
def test_packed_and_an_actor_killed(on_gpu: Simulate, alone: Run) -> None:
    assert_same(alone, on_gpu(*RAY, "engine.clients_per_actor=3", "faults=[{kind: kill, client: B.1, round: 2}]"))


@pytest.mark.usefixtures("ray_session")
def test_fused_on_actors(on_gpu: Simulate, fused: Run) -> None:
    assert_same(fused, on_gpu(FUSED, *RAY, "engine.clients_per_actor=3"))


@pytest.mark.parametrize("keys", [(), (FUSED,)], ids=["alone", "fused"])
def test_interrupted_and_resumed(
    on_gpu: Simulate, alone: Run, fused: Run, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    asked = iter([False, True])
    on_gpu(*keys, out=tmp_path / "part", stop=lambda: next(asked))
    assert_same(fused if keys else alone, on_gpu(*keys, out=tmp_path / "part", resume=True))


def test_fused_in_another_order_of_clients(fused: Run, tmp_path: Path, cache: Path) -> None:
    """Of sites that share nothing but the encoder's mean, which is the same in any order."""

    def in_order(step: int) -> Run:
        folder = tmp_path / str(step)
        folder.mkdir()
        path = written(folder, cache)
        content = read_yaml(path)
        content["federation"]["sites"] = content["federation"]["sites"][::step]
        path.write_text(write_yaml(content))
        return run(load_workload(path, [*KEYS, FUSED, "algorithm={name: fedper}"]), folder / "run")

    one, other = in_order(1), in_order(-1)
    assert list(one.clients["client"]) != list(other.clients["client"])
    assert tensors(one) == tensors(other)


@pytest.mark.parametrize("keys", [(), (FUSED,)], ids=["alone", "fused"])
@pytest.mark.parametrize("below", [(), ("engine.state_memory=0",)], ids=["pinned", "file"])
def test_private_state_beyond_the_gpus_memory(
    on_gpu: Simulate, alone: Run, fused: Run, keys: tuple[str, ...], below: tuple[str, ...]
) -> None:
    assert_same(fused if keys else alone, on_gpu(*keys, "engine.device_memory=0", *below))


# However steps are taken


def test_captured_steps_equal_eager_ones(on_gpu: Simulate, alone: Run, fused: Run) -> None:
    assert_same(alone, on_gpu(EAGER))
    assert_same(fused, on_gpu(EAGER, FUSED))
    assert tensors(alone) != tensors(fused)


@pytest.mark.parametrize("keys", [(), (FUSED,)], ids=["alone", "fused"])
def test_batch_norm(on_gpu: Simulate, keys: tuple[str, ...]) -> None:
    one, other, eager = (on_gpu("model.norm=batch", *keys, *more) for more in ((), (), (EAGER,)))
    assert_same(one, other)
    assert_same(one, eager)


def test_each_precision_repeats_itself_and_equals_no_other(on_gpu: Simulate) -> None:
    found = []
    for precision in ("float32", "tf32", "bfloat16"):
        one, other = (on_gpu(ONE_ROUND, f"training.precision={precision}") for _ in range(2))
        assert_same(one, other)
        found.append(tensors(one))
    assert all(one != other for one, other in combinations(found, 2))


# The choice of kernels


def flags() -> tuple[bool, ...]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    deterministic = torch.are_deterministic_algorithms_enabled()
    return deterministic, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32


def test_what_torch_used_before_is_restored(on_gpu: Simulate) -> None:
    before = flags()
    on_gpu(ONE_ROUND)
    assert flags() == before


def test_any_kernels_and_what_that_costs(on_gpu: Simulate, caplog: pytest.LogCaptureFixture) -> None:
    run = on_gpu(ONE_ROUND, "engine.deterministic=false")
    assert run.rounds["loss"].notna().all()
    assert (run.workload.provenance or {})["kernel_choice"] == "any"
    said = "engine.deterministic: false: a run that is repeated, resumed or placed otherwise ends in other last bits"
    assert said in [one.message for one in caplog.records if one.levelno >= logging.WARNING]
