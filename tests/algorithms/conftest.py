"""A federation of seconds for the methods' laws, and what plain loops on it are made of."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from fedsim.core.seeds import numpy_stream, torch_stream
from fedsim.data.batch import Batch
from fedsim.engine.federation import assemble
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.models.reconstruction import ReconstructionNetwork
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from tests.conftest import three_sites, unplaced

Simulate = Callable[..., Run]
Named = dict[str, Tensor]
"""Parameters and running statistics of a network, by name."""
Models = dict[str, Named]
"""The network that each client would use at the end, by client; and under "shared" the server's, if that is another."""


def small(cache: Path) -> dict[str, Any]:
    """Three sites, four clients of two to four steps an epoch; one site has a matrix and a learning rate of its own."""
    return {
        "name": "small",
        "seed": 3,
        "federation": {
            "cache": str(cache),
            "clients": 4,
            "matrix": [16, 16],
            "sites": three_sites(slices=2, size=32),
        },
        "model": {"channels": 2, "pools": 1},
        "training": {"rounds": 3, "local_epochs": 2, "batch_size": 2, "lr": 1e-3, "lr_step": 2},
        "engine": {"backend": "serial", "keep_last": 9},
    }


@pytest.fixture
def workload(tmp_path: Path, cache: Path) -> Callable[..., Workload]:
    """Makes the workload of a method, with overrides KEY=VALUE."""

    def make(method: str, *overrides: str) -> Workload:
        path = tmp_path / "small.yaml"
        path.write_text(write_yaml(small(cache)))
        return load_workload(path, (f"algorithm.name={method}", *overrides))

    return make


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, ...], Run]]:
    """A folder, and the runs in it by what they are runs of; several laws look at the same ones."""
    return tmp_path_factory.mktemp("runs"), {}


@pytest.fixture
def simulate(workload: Callable[..., Workload], done: tuple[Path, dict[tuple[str, ...], Run]]) -> Simulate:
    """Runs a method with overrides, once a session; or into `out`, if that is given."""
    folder, runs = done

    def simulate(method: str, *overrides: str, **keys: Any) -> Run:
        if keys:
            return run(workload(method, *overrides), **keys)
        what = (method, *overrides)
        if what not in runs:
            runs[what] = run(workload(*what), folder / str(len(runs)))
        return runs[what]

    return simulate


# What a run holds


def load(run: Run, round_: int, name: str) -> dict[str, np.ndarray]:
    path = run.path / f"checkpoints/round-{round_:04d}/{name}.safetensors"
    return load_file(path) if path.exists() else {}


def clients(run: Run) -> list[str]:
    return list(dict.fromkeys(run.clients["client"]))


def networks(run: Run, round_: int) -> dict[str, np.ndarray]:
    """Every client's network by client/parameter, wherever its parameters are kept."""
    shared = load(run, round_, "shared")
    own = {name: load(run, round_, f"clients/{name}") for name in clients(run)}
    whole = {f"{name}/{key}": array for name in own for key, array in {**shared, **own[name]}.items()}
    return {key: array for key, array in whole.items() if "/state." not in key}


def everything(run: Run, round_: int) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint."""
    files = ["shared", "server", *(f"clients/{name}" for name in clients(run))]
    return {f"{file}/{key}": array for file in files for key, array in load(run, round_, file).items()}


def assert_equal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    """The same names and the same bits."""
    assert one
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


def differ(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return any(not np.array_equal(one[name], other[name]) for name in one)


def assert_same_tables(one: Run, other: Run, *, without: tuple[str, ...] = ()) -> None:
    """The same losses and validation metrics in every round, and the same evaluated volumes."""
    for table in ("clients", "rounds", "evaluation"):
        ours, theirs = (
            unplaced(getattr(run, table)).drop(columns=["algorithm", *without], errors="ignore") for run in (one, other)
        )
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def assert_same_run(one: Run, other: Run) -> None:
    """The same bits: every tensor of every checkpoint, every metric, every evaluated volume."""
    for round_ in range(1, one.workload.training.rounds + 1):
        assert_equal(everything(one, round_), everything(other, round_))
    assert_same_tables(one, other)


# What plain loops are made of


@dataclass(frozen=True)
class Bench:
    """A workload's clients, batches, networks and optimizers; the loops themselves are the tests' own."""

    workload: Workload
    clients: tuple[ClientSpec, ...]

    @property
    def rounds(self) -> range:
        return range(1, self.workload.training.rounds + 1)

    def network(self) -> ReconstructionNetwork:
        """As every client and the server start."""
        return self.workload.model.build(torch_stream(self.workload.seed, "model"))

    def optimizer(self, network: nn.Module, client: ClientSpec) -> torch.optim.Optimizer:
        kind = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}[client.training.optimizer]
        return kind(network.parameters(), lr=client.training.lr)

    def discriminator(self, source: str, target: str) -> nn.Module:
        """FL-MRCM's of a pair of clients, as it starts: two layers on latent vectors (n, V), logits (n, 1, 1, 1)."""
        channels, pooled = self.network().latent_channels, self.workload.algorithm.latent == "pooled"
        size, width = (4 * channels, 256) if pooled else (channels, 64)
        net = nn.Sequential(
            nn.Unflatten(1, (size, 1, 1)), nn.Conv2d(size, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 1)
        )
        draws = torch_stream(self.workload.seed, "discriminator", source, target)
        for layer in (net[1], net[3]):
            bound = 1 / layer.in_channels**0.5
            layer.weight.data.uniform_(-bound, bound, generator=draws)
            layer.bias.data.uniform_(-bound, bound, generator=draws)
        return net

    def begin_round(self, optimizer: torch.optim.Optimizer, client: ClientSpec, round_: int) -> float:
        """Set and return the learning rate: it falls every lr_step rounds."""
        training = client.training
        rate = training.lr * training.lr_gamma ** ((round_ - 1) // training.lr_step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def cohort(self, round_: int) -> list[ClientSpec]:
        """The clients drawn for a round."""
        size = round(self.workload.training.participation * len(self.clients))
        drawn = numpy_stream(self.workload.seed, "cohort", round_).choice(len(self.clients), size=size, replace=False)
        return [self.clients[index] for index in sorted(drawn)]

    def epochs(self, client: ClientSpec, round_: int, skipped: int = 0) -> Iterator[Iterator[Batch]]:
        """The batches of each local epoch, after some epochs of the round that served another purpose."""
        for epoch in range(1 + skipped, 1 + skipped + client.training.local_epochs):
            order = torch_stream(self.workload.seed, "batches", client.name, round_, epoch)
            yield client.data.batches(client.training.batch_size, order)

    def batches(self, client: ClientSpec, round_: int) -> Iterator[Batch]:
        """The batches of a round, epoch after epoch."""
        return (batch for epoch in self.epochs(client, round_) for batch in epoch)


def bench(workload: Workload) -> Bench:
    return Bench(workload, assemble(workload).clients)


def error(network: nn.Module, batch: Batch) -> Tensor:
    """The training loss."""
    return torch.nn.functional.mse_loss(network(batch.kspace, batch.mask), batch.target)


def state(network: nn.Module, wanted: Callable[[str], bool] = lambda name: True) -> Named:
    """A copy of the wanted parameters and running statistics."""
    tensors = network.state_dict().items()
    return {name: t.clone() for name, t in tensors if t.is_floating_point() and wanted(name)}


def put(network: nn.Module, values: Named) -> None:
    network.load_state_dict(values, strict=False)


def mean(sent: list[Named], weights: list[float] | None = None) -> Named:
    """The weighted mean, in float64; default all alike."""
    weights = weights or [1.0] * len(sent)
    total = sum(weights)
    return {
        name: (sum(w / total * one[name].double() for w, one in zip(weights, sent, strict=True))).float()
        for name in sent[0]
    }


Reference = Callable[[Bench], Models]


def assert_close(run: Run, expected: Models) -> None:
    """A run's last networks are those of a plain loop.

    Tolerance 1e-5 relative or 1e-6 absolute: the engine rounds the terms of a sum to 2^-40 and keeps the server's
    vectors in float32, and a written-out gradient and autograd's may differ in the last bit (1e-7 relative), which the
    steps of three rounds carry on. Parameters move by 1e-2 and more.
    """
    start = state(run.workload.model.build(torch_stream(run.workload.seed, "model")))
    for client, theirs in expected.items():
        ours = shared_by(run) if client == "shared" else state(run.model(client, "last"))
        assert ours.keys() == theirs.keys()
        assert max(float((theirs[name] - start[name]).abs().max()) for name in theirs) > 1e-2, "nothing was learnt"
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def shared_by(run: Run) -> Named:
    """The server's last model."""
    return {name: torch.from_numpy(array) for name, array in load(run, run.round("last"), "shared").items()}
