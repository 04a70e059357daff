"""Every step of every method that fuses: its gradient is the one that the client alone would have met there."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Phase, Received, Upload
from fedsim.algorithms.flat import FlatTensors
from fedsim.algorithms.learner import PARAMETER_GROUPS, Learner, ParameterGroup
from fedsim.algorithms.training import State
from fedsim.core.seeds import torch_stream
from fedsim.data.batch import Batch
from fedsim.data.samples import SliceMemory
from fedsim.engine.federation import assemble
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.fusion import FusedLearner, Fusion
from fedsim.engine.host.process import Watch
from fedsim.engine.host.uploads import as_tensors
from fedsim.engine.server import Server
from fedsim.models.base import Network
from fedsim.models.unet import Norm, UNet
from fedsim.mri.fft import ifft2c
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from tests.algorithms.conftest import small
from tests.conftest import every

L = TypeVar("L", bound=Learner)
ROWS, STEPS = 3, 20
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
OF_SITES = (
    "federation.sites.0.training={batch_size: 1}",
    "federation.sites.1.training={lr: 2e-3, local_epochs: 4}",
    "federation.sites.2.training={batch_size: 3, local_epochs: 4, optimizer: sgd}",
)
"""Unequal batch sizes, last batches, numbers of steps, learning rates and optimizers."""
METHODS = [
    ("fedavg", ()),
    ("fedprox", ()),
    ("fedmri", ("algorithm.beta=1",)),
    ("fedmri", ("algorithm.beta=1", "algorithm.exact_up_to=2", "algorithm.own=false")),
    ("fedmri", ("algorithm.beta=1", "algorithm.damping=0.5", "algorithm.own=false")),
    ("fedmri", ("algorithm.beta=1e-3", "algorithm.term=l1")),
    ("fedper", ()),
    ("lg_fedavg", ()),
    ("fedbn", ("model.norm=batch",)),
    ("fedrep", ()),
    ("fedrep", ("algorithm.head=[decoder.last]", "algorithm.tune_epochs=1")),
    ("apfl", ()),
    ("fedala", ()),
    ("frozen_encoder", ()),
    ("single", ()),
    ("scaffold", ("model.norm=batch",)),
    ("feddyn", ()),
    ("fedadam", ()),
    ("fedyogi", ()),
    ("fedadagrad", ()),
]
CASES = [
    *every(7, [(*method, torch.float64) for method in METHODS]),
    *(pytest.param(*method, torch.float32, marks=pytest.mark.long) for method in METHODS),
]


class Plain(Network):
    """An image U-Net whose output keeps its type."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.image = UNet(1, 2, 1, norm, residual=False)

    def forward(self, kspace: Tensor, mask: Tensor) -> Tensor:
        """Of k-space complex64 or complex128."""
        output: Tensor = self.image(ifft2c(kspace).abs()[:, None])[:, 0]
        return output


@dataclass(frozen=True)
class Step:
    """A step of a client: where it was taken from, and along which gradients (after the method's regulariser)."""

    weights: Mapping[ParameterGroup, Tensor]
    gradients: Mapping[ParameterGroup, Tensor]
    statistics: Mapping[ParameterGroup, Tensor]
    """Running statistics after it."""


class Fused(FusedLearner):
    """Writes down its steps."""

    taken: list[Step]

    def step(
        self,
        batch: Batch,
        *,
        loss: Callable[[Batch], Tensor] | None = None,
        regulariser: Callable[[], None] | None = None,
        groups: Collection[ParameterGroup] = PARAMETER_GROUPS,
    ) -> None:
        """As of any learner."""

        def look() -> None:
            weights = copied(self.flat)  # before the regulariser, which may put others in their place
            if regulariser is not None:
                regulariser()
            self.taken.append(Step(weights, gradients(self, groups), copied(self.flat_buffers)))

        super().step(batch, loss=loss, regulariser=look, groups=groups)

    def differentiate(self, batch: Batch, groups: Collection[ParameterGroup]) -> Tensor:
        """In the network's type."""
        return super().differentiate(of_type(batch, next(self.network.parameters()).dtype), groups)


class Alone(Learner):
    """Takes each of the steps of a fused client from where it was taken, and compares."""

    ahead: Iterator[Step]
    compared: int

    def step(
        self,
        batch: Batch,
        *,
        loss: Callable[[Batch], Tensor] | None = None,
        regulariser: Callable[[], None] | None = None,
        groups: Collection[ParameterGroup] = PARAMETER_GROUPS,
    ) -> None:
        """As of any learner, but for where it starts."""
        fused = next(self.ahead)
        for group, weights in fused.weights.items():
            self.flat(group).vector.data.copy_(weights)

        def look() -> None:
            if regulariser is not None:
                regulariser()
            assert_near(self.flat_buffers, copied(self.flat_buffers), fused.statistics)
            assert_near(self.flat, gradients(self, groups), fused.gradients)
            self.compared += 1

        super().step(batch, loss=loss, regulariser=look, groups=groups)

    def differentiate(self, batch: Batch, groups: Collection[ParameterGroup]) -> Tensor:
        """In the network's type."""
        return super().differentiate(of_type(batch, next(self.network.parameters()).dtype), groups)


def smooth(network: nn.Module) -> None:
    """Without the kinks of leaky ReLUs, where another rounding of an activation near 0 is a jump of the gradient."""
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.LeakyReLU):
                setattr(module, name, nn.SiLU())


def copied(flat: Callable[[ParameterGroup], FlatTensors]) -> dict[ParameterGroup, Tensor]:
    return {group: flat(group).vector.detach().clone() for group in PARAMETER_GROUPS}


def gradients(learner: Learner, groups: Collection[ParameterGroup]) -> dict[ParameterGroup, Tensor]:
    return {group: learner.flat(group).gradient.clone() for group in groups}


def of_type(batch: Batch, dtype: torch.dtype) -> Batch:
    parts = {part.name: value for part in fields(batch) if (value := getattr(batch, part.name)) is not None}
    wanted = {name: dtype.to_complex() if value.is_complex() else dtype for name, value in parts.items()}
    return replace(batch, **{name: v.to(wanted[name]) for name, v in parts.items() if v.dtype != torch.bool})


def assert_near(
    flat: Callable[[ParameterGroup], FlatTensors],
    one: Mapping[ParameterGroup, Tensor],
    other: Mapping[ParameterGroup, Tensor],
) -> None:
    """Each tensor of the vectors, relative to its norm; a small one, whose terms cancel, to a tenth of that of all."""
    assert one.keys() == other.keys()
    least = 0.1 * float(torch.cat([*one.values()]).norm())
    for group, mine in one.items():
        theirs = flat(group).by_name(other[group])
        for name, value in flat(group).by_name(mine).items():
            scale = max(float(value.norm()), least)
            assert float((value - theirs[name]).norm()) <= TOLERANCE[value.dtype] * scale, name


@dataclass(frozen=True)
class Turn:
    """What a client's round left."""

    client: ClientSpec
    steps: list[Step]
    sent: Mapping[str, Tensor]
    state: State


def turn(
    workload: Workload, received: Mapping[str, Tensor], round_: int, client: ClientSpec, state: State, learner: Fused
) -> Turn:
    """The client's round."""
    learner.enter(cloned(state), client.data, client.training, round_, client.name)
    learner.watch, learner.taken = Watch(SliceMemory()), []
    if "buffers" in received:
        learner.shared_buffers.copy_(received["buffers"])
    sent = {**workload.algorithm.train(learner, received, "train"), "buffers": learner.shared_buffers}
    return Turn(client, learner.taken, cloned(sent), learner.leave())


def followed(workload: Workload, received: Mapping[str, Tensor], alone: Alone, round_: int, before: Turn) -> int:
    """The same round by the client alone; returns the number of steps compared."""
    alone.enter(cloned(before.state), before.client.data, before.client.training, round_, before.client.name)
    alone.ahead, alone.compared = iter(before.steps), 0
    if "buffers" in received:
        alone.shared_buffers.copy_(received["buffers"])
    workload.algorithm.train(alone, received, "train")
    assert next(alone.ahead, None) is None, "as many steps"
    return alone.compared


def cloned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def summed(uploads: list[Upload], turns: list[Turn]) -> Received:
    """What the server receives."""
    sent = {one.name: [t.sent[one.name].to(torch.float32).numpy() for t in turns] for one in uploads}
    weights = {one.name: 1 / len(turns) if one.weighted else 1.0 for one in uploads}
    return Received(
        phase=Phase(tuple(t.client.name for t in turns)),
        sums={name: np.sum(vectors, axis=0, dtype=np.float64) * weights[name] for name, vectors in sent.items()},
        weight=1.0,
        collected={one.name: sent[one.name] for one in uploads if one.collected},
        population=len(turns),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("method", "keys", "dtype"), CASES)
def test_each_gradient_is_that_of_the_client_alone(
    method: str, keys: tuple[str, ...], dtype: torch.dtype, tmp_path: Path, cache: Path
) -> None:
    """From the same weights, received vectors and private state, over two rounds of unequal clients."""
    (tmp_path / "small.yaml").write_text(write_yaml(small(cache)))
    overrides = [f"algorithm.name={method}", *keys, *OF_SITES, "training.local_epochs=3"]
    workload = load_workload(tmp_path / "small.yaml", overrides).settled()
    clients = assemble(workload).clients

    def learner(kind: type[L]) -> L:
        torch.manual_seed(0)
        stream = torch_stream(workload.seed, "model")
        network = Plain(workload.model.norm).double() if dtype == torch.float64 else workload.model.build(stream)
        smooth(network)
        return kind(network, partial(hooks.shares, workload.algorithm))

    fusion, alone = Fusion[Turn]([learner(Fused) for _ in range(ROWS)]), learner(Alone)
    server = Server(workload.algorithm, alone.fresh_server())
    states = {client.name: alone.fresh_state() for client in clients}
    compared = dict.fromkeys(states, 0)
    for round_ in (1, 2):
        received = {name: value.to(dtype) for name, value in as_tensors(server.broadcast("train")).items()}
        tasks = [partial(turn, workload, received, round_, client, states[client.name]) for client in clients]
        turns = {done.client.name: done for done in fusion.run(tasks)}
        for name, done in turns.items():
            compared[name] += followed(workload, received, alone, round_, replace(done, state=states[name]))
        server.take_up(summed(server.uploads("train"), [turns[client.name] for client in clients]))
        states = {name: done.state for name, done in turns.items()}
    assert min(compared.values()) >= STEPS
    assert len(set(compared.values())) > 1, "unequal numbers of steps"
