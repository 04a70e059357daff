"""Fused clients: the same bits whoever trains beside whom, where and how often; and those of nobody else's making."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedsim.core.errors import ClientError
from fedsim.core.seeds import torch_stream
from fedsim.data.samples import SliceMemory
from fedsim.engine.host.fusion import FusedLearner, Fusion
from fedsim.engine.host.process import Watch
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.engine.simulation import Simulation, run
from fedsim.engine.state import checkpoint
from fedsim.workload.reading import load_workload, write_yaml
from tests.algorithms.conftest import small
from tests.engine.conftest import assert_same, tensors

Simulate = Callable[..., Run]
Edit = Callable[[dict[str, Any]], object]
OF_SITES = (
    "federation.sites.0.training={batch_size: 3, lr: 3e-3}",
    "federation.sites.1.training={batch_size: 1, local_epochs: 3, lr: 1e-2}",
)
"""Unequal batch sizes, last batches, numbers of steps and learning rates; one site has another matrix, too."""
APART = ("algorithm.name=single", "training.rounds=2", "metrics.every=0", *OF_SITES)
DROP = "engine.on_client_error=drop"


@pytest.fixture
def simulate(tmp_path: Path, cache: Path) -> Simulate:
    """Runs the methods' small workload with three fused clients of its four, after an edit and with overrides."""
    count = iter(range(100))

    def simulate(*overrides: str, edit: Edit = lambda content: None, **keys: Any) -> Run:
        number = next(count)
        content = small(cache)
        edit(content)
        path = tmp_path / f"small-{number}.yaml"
        path.write_text(write_yaml(content))
        workload = load_workload(path, ["training.fuse=3", "training.local_epochs=1", *overrides])
        return run(workload, **{"out": tmp_path / f"run-{number}", **keys})

    return simulate


@pytest.fixture(scope="session")
def fused(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    """FedMRI with three rows. Read it, do not write to it."""
    folder = tmp_path_factory.mktemp("fused")
    (folder / "small.yaml").write_text(write_yaml(small(cache)))
    keys = ["training.fuse=3", "training.local_epochs=1", *OF_SITES]
    return run(load_workload(folder / "small.yaml", keys), folder / "run")


def last(run: Run, client: str) -> dict[str, bytes]:
    """The private state of a client after the last round."""
    path = run.path / f"checkpoints/round-{run.round('last'):04d}/clients/{client}.safetensors"
    return {name: array.tobytes() for name, array in load_file(path).items()}


def networks(run: Run) -> Mapping[str, np.ndarray]:
    """All parameters of each round."""
    return {
        f"{path.relative_to(run.path)}/{name}": array
        for path in sorted(run.path.glob("checkpoints/**/*.safetensors"))
        for name, array in load_file(path).items()
        if "state." not in name
    }


# The same bits


@pytest.mark.slow
def test_in_another_order_of_clients(simulate: Simulate) -> None:
    """Rows are given to clients in the order of the federation; a personal model and a shared one."""
    keys = ("algorithm.name=fedper", "model.norm=batch", "federation.clients=6", "training.rounds=2", *OF_SITES[1:])

    def reverse(content: dict[str, Any]) -> None:
        content["federation"]["sites"].reverse()

    one, other = simulate(*keys), simulate(*keys, edit=reverse)
    assert list(one.clients["client"]) != list(other.clients["client"])
    assert tensors(one) == tensors(other)


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_on_other_actors(simulate: Simulate, fused: Run) -> None:
    assert_same(fused, simulate(*OF_SITES, "engine.backend=ray", "engine.clients_per_actor=2"))


@pytest.mark.slow
def test_interrupted_and_resumed(simulate: Simulate, fused: Run, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    simulate(*OF_SITES, out=tmp_path / "part", stop=lambda: next(asked))
    assert checkpoint.complete_rounds(tmp_path / "part") == [1, 2]
    assert_same(fused, simulate(*OF_SITES, out=tmp_path / "part", resume=True))


@pytest.mark.slow
def test_one_client_again(fused: Run) -> None:
    """`fedsim debug` trains it beside nobody."""
    loss = fused.clients.set_index(["round", "client"])["loss"]
    for round_, client in ((1, "C"), (3, "A.2")):
        with Simulation(fused.workload, fused.path, resume=True, writes=False) as simulation:
            assert simulation.debug(client, round_)["loss"] == loss[round_, client]


@pytest.mark.slow
@pytest.mark.parametrize("gigabytes", ["0", "1e-5"])
def test_with_private_state_in_a_file(simulate: Simulate, fused: Run, gigabytes: str) -> None:
    """All of it, or what is beyond 10 kB."""
    assert_same(fused, simulate(*OF_SITES, f"engine.state_memory={gigabytes}"))


@pytest.mark.slow
def test_the_number_of_rows_belongs_to_what_is_computed(simulate: Simulate, fused: Run) -> None:
    """So that the equalities above say something: nothing equals by way of one client at a time."""
    assert fused.workload.training.fuse == 3
    assert tensors(simulate(*OF_SITES, "training.fuse=1")) != tensors(fused)


# A client's own bits


@pytest.mark.slow
def test_no_client_depends_on_the_data_of_another(simulate: Simulate) -> None:
    one = simulate(*APART)
    other = simulate(*APART, "federation.sites.0.mask.acceleration=2")
    assert last(one, "A.1") != last(other, "A.1")
    assert {name: last(one, name) for name in ("B", "C")} == {name: last(other, name) for name in ("B", "C")}


@pytest.mark.slow
def test_fewer_clients_than_rows(simulate: Simulate) -> None:
    def two_sites(content: dict[str, Any]) -> None:
        del content["federation"]["sites"][0]
        content["federation"]["clients"] = 2

    keys = ("algorithm.name=single", "training.rounds=2", "metrics.every=0")
    one, other = simulate(*keys), simulate(*keys, edit=two_sites)
    assert set(other.clients["client"]) == {"B", "C"}
    assert {name: last(one, name) for name in ("B", "C")} == {name: last(other, name) for name in ("B", "C")}


@pytest.mark.slow
def test_unequal_clients_end_where_they_would_alone(simulate: Simulate) -> None:
    """Plain gradient steps carry rounding on as it is: a wrong step, rate or batch would be seen."""
    keys = (
        "training={rounds: 2, batch_size: 2, optimizer: sgd}",
        "algorithm.name=fedavg",
        "model.norm=batch",
        *OF_SITES,
    )
    one, other = simulate(*keys), simulate(*keys, "training.fuse=1")
    for name, mine in networks(one).items():
        np.testing.assert_allclose(mine, networks(other)[name], rtol=1e-4, atol=1e-5)
    assert one.clients["steps"].tolist() == other.clients["steps"].tolist()
    assert one.clients["steps"].nunique() > 2
    np.testing.assert_allclose(one.clients["loss"], other.clients["loss"], rtol=1e-4)


def test_each_row_reads_what_is_its_own(fused: Run) -> None:
    """Three rows, of which one asks for other numbers than the others, and a fourth task after one of them."""
    setup = setup_of(fused.workload)
    networks = [setup.model.build(torch_stream(setup.seed, "model")) for _ in range(3)]
    rows = [FusedLearner(network, lambda _: True) for network in networks]

    def task(index: int, learner: FusedLearner) -> list[list[float]]:
        learner.watch = Watch(SliceMemory())
        return [values.tolist() for values in learner.read([[index, 0.5], *([[7.0 * index]] * (index == 1))])]

    found = list(Fusion[list[list[float]]](rows).run(partial(task, index) for index in range(4)))
    assert found == [[[0, 0.5]], [[1, 0.5], [7]], [[2, 0.5]], [[3, 0.5]]]


# Clients that fail

STUMBLE = """
from fedsim.algorithms.single import Isolated

class Stumble(Isolated):
    name: str = "stumble:Stumble"

    def regulariser(self, learner, received):
        def pull():
            if (learner.client, learner.round) == ("B", 2) and len(learner.notes["loss"]) == 2:
                raise ValueError("stumbled")

        return pull
"""


@pytest.fixture
def stumbling(tmp_path: Path) -> str:
    """A method that raises in the second step of client B in round 2."""
    (tmp_path / "stumble.py").write_text(STUMBLE)
    return "algorithm.name=stumble:Stumble"


@pytest.mark.slow
def test_a_client_that_raises_leaves_the_others_as_they_are(simulate: Simulate, stumbling: str) -> None:
    whole, without = simulate(*APART), simulate(*APART, stumbling, DROP)
    failed = pd.read_parquet(without.path / "failures.parquet")
    assert failed[["round", "client", "action"]].to_numpy().tolist() == [[2, "B", "dropped"]]
    assert "ValueError: stumbled (in regulariser of stumble:Stumble)" in failed["message"][0]
    assert last(without, "B") != last(whole, "B")
    for name in ("A.1", "A.2", "C"):
        assert last(without, name) == last(whole, name)


def test_a_client_that_raises_ends_the_run(simulate: Simulate, stumbling: str, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"^client B, round 2, seed 3: ValueError: stumbled"):
        simulate(*APART, stumbling, out=tmp_path / "run")
    assert checkpoint.complete_rounds(tmp_path / "run") == [1]


@pytest.mark.slow
def test_a_client_that_diverges_leaves_the_others_as_they_are(simulate: Simulate) -> None:
    beyond = "federation.sites.1.training={lr: 1e30, batch_size: 1}"
    whole, without = simulate(*APART), simulate(*APART, beyond, DROP)
    failed = pd.read_parquet(without.path / "failures.parquet")
    assert set(zip(failed["client"], failed["kind"], strict=True)) == {("B", "diverged")}
    for name in ("A.1", "A.2", "C"):
        assert last(without, name) == last(whole, name)


# What is learnt


@pytest.mark.long
def test_losses_are_within_the_spread_of_two_seeds(simulate: Simulate) -> None:
    keys = ("algorithm.beta=1", "training.rounds=20", "training.lr=3e-3", "training.lr_step=0", "metrics.every=0")
    fused, single, other = (
        simulate(*keys, *more).rounds["loss"].to_numpy() for more in ((), ("training.fuse=1",), ("seed=4",))
    )
    assert fused[-1] < 0.9 * fused[0], "something is learnt"
    assert np.abs(fused - single).mean() < np.abs(fused - other).mean()
