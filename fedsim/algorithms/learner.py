"""One client's network, optimizer and data as an algorithm sees them; one network serves every client of an actor.

The parameters that an algorithm shares lie in one flat vector, the others in a second one. Elementwise optimizers give
the same numbers on these vectors as they do parameter by parameter. Two more hold running statistics of batch norm.
"""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsim.algorithms.flat import FlatBuffers, FlatParameters, clip
from fedsim.algorithms.graphs import Graphs
from fedsim.algorithms.optimizers import new_optimizer, optimizer_state
from fedsim.algorithms.training import Scalars, State, Training, arithmetic, numbers, onto
from fedsim.core.seeds import torch_stream
from fedsim.data.batch import Batch
from fedsim.data.samples import SliceMemory, Slices
from fedsim.models.base import Network

ParameterGroup = Literal["shared", "local"]
PARAMETER_GROUPS: tuple[ParameterGroup, ...] = ("shared", "local")
_Names = Callable[[str], bool]


class Learner:
    """A working network that takes on one client after the other; what is declared here belongs to that client."""

    client: str
    """Name."""
    data: Slices
    """Its slices."""
    training: Training
    """Its optimizer, learning rate, batch size and epochs."""
    round: int
    """The round that it trains in, counted from 1."""
    staleness: int
    """Rounds that the server has finished since the client began; 0 unless rounds overlap."""
    optimizer: torch.optim.Optimizer
    """The optimizer of all parameters."""
    notes: dict[str, list[float | Tensor]]
    """By name, what it noted in each step, for the ledger."""
    _epoch: int  # epochs begun in this round

    def __init__(
        self,
        network: Network,
        shares: _Names,
        *,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        memory: SliceMemory | None = None,
        graphs: bool = True,
    ) -> None:
        """A network split into a shared and a local group of parameters.

        Args:
            network: Its parameters become views of flat vectors.
            shares: Whether the parameter of a name is shared.
            device: Where it works.
            channels_last: Whether convolution weights lie with their channels last.
            memory: What keeps clients' training slices between epochs.
            graphs: Whether steps on a GPU are captured and replayed.
        """
        self.device, self._memory = torch.device(device), memory
        network.to(self.device)
        parameters = list(network.named_parameters())
        buffers = [(name, buffer) for name, buffer in network.named_buffers() if buffer.is_floating_point()]
        in_group: dict[ParameterGroup, _Names] = {"shared": shares, "local": lambda name: not shares(name)}
        self.network = network
        self._flat = {
            group: FlatParameters([p for p in parameters if mine(p[0])], channels_last)
            for group, mine in in_group.items()
        }
        self._buffers = {
            group: FlatBuffers(network, [b for b in buffers if mine(b[0])]) for group, mine in in_group.items()
        }
        self._modules = list(network.modules())
        self._graphs = Graphs(self.device, graphs)
        self._start = {name: vector.clone() for name, vector in self._model().items()}
        self.private: State = {}
        """The private state of the current client; an algorithm may add vectors."""
        self._attributes = {*vars(self), "_attributes"}

    def _model(self) -> dict[str, Tensor]:
        """All parameters and buffers of the network, as vectors by name; empty buffers are left out."""
        parameters = {group: flat.vector.data for group, flat in self._flat.items()}
        return parameters | {f"{group}_buffers": b.vector for group, b in self._buffers.items() if b.vector.numel()}

    @property
    def shared(self) -> Tensor:
        """The shared parameters (P,); assign with copy_."""
        return self._flat["shared"].vector.data

    @property
    def shared_gradient(self) -> Tensor:
        """Gradient (P,) of the loss in the shared parameters; valid inside a regulariser."""
        return self._flat["shared"].gradient

    @property
    def shared_buffers(self) -> Tensor:
        """Running statistics (B,) of the layers that are shared; the engine averages them, whatever the method."""
        return self._buffers["shared"].vector

    @property
    def local(self) -> Tensor:
        """The parameters that stay with the client (Q,); assign with copy_."""
        return self._flat["local"].vector.data

    def flat(self, group: ParameterGroup) -> FlatParameters:
        """The parameters of a group: their names, shapes and vector."""
        return self._flat[group]

    def flat_buffers(self, group: ParameterGroup) -> FlatBuffers:
        """The running statistics of a group."""
        return self._buffers[group]

    @property
    def parameters(self) -> list[str]:
        """Names of all parameters."""
        return [name for flat in self._flat.values() for name, _ in flat.layout]

    @property
    def modes(self) -> tuple[bool, ...]:
        """Whether each module of the network is in training mode."""
        return tuple(module.training for module in self._modules)

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(self.data.samples() / self.training.batch_size)

    def fresh_state(self) -> State:
        """The private state of a client that has not trained yet; all clients start alike."""
        return {name: vector.clone() for name, vector in self._start.items() if name.startswith("local")}

    def fresh_server(self) -> dict[str, NDArray[np.float32]]:
        """What every client starts from: the `shared` parameters (P,) and, if there are any, the shared `buffers`."""
        start = {"shared": self._start["shared"], "buffers": self._start.get("shared_buffers")}
        return {name: vector.cpu().numpy().copy() for name, vector in start.items() if vector is not None}

    def start_as(self, other: "Learner") -> None:
        """Let clients start from the initial values of another learner, a copy of which is then not kept here."""
        self._start = other._start

    def enter(self, state: State, data: Slices, training: Training, round_: int, client: str, stale: int = 0) -> None:
        """Take on a client: its private parameters, optimizer state, data and random streams.

        What a method left in another attribute goes: the next client must not see it, wherever the two live.
        """
        for name in vars(self).keys() - self._attributes:
            delattr(self, name)
        self.private = {key: onto(value, self.device) for key, value in state.items()}
        self.data, self.training = data, training
        self.client, self.round, self.staleness, self._epoch = client, round_, stale, 0
        self.notes = {"loss": []}
        if not all(self.modes):  # setting each costs more
            self.network.train()
        self.adopt(state)
        self.optimizer = self._optimizer(state, "")

    def leave(self) -> State:
        """The client's private state after its work."""
        working = {vector.untyped_storage().data_ptr() for vector in self._model().values() if vector.numel()}
        state = {
            key: value.clone() if value.untyped_storage().data_ptr() in working else value
            for key, value in self.private.items()
            if not key.startswith("optimizer.")
        }
        for name, vector in self._model().items():
            if name.startswith("local"):
                state[name].copy_(vector)
        return state | self._optimizer_state("")

    def adopt(self, state: State, prefix: str = "") -> None:
        """Set parameters and running statistics from those that `state` holds under their names after `prefix`."""
        for name, vector in self._model().items():
            if prefix + name in state:
                vector.copy_(state[prefix + name])

    @contextmanager
    def branch(self, name: str) -> Iterator[None]:
        """Work on another model of the client, with a separate optimizer and separate epochs.

        It starts from the initial parameters, and stays with the client as `<name>.shared`, `<name>.local`, ...
        """
        main = {key: vector.clone() for key, vector in self._model().items()}
        optimizer, epoch = self.optimizer, self._epoch
        self.adopt(self._start)
        self.adopt(self.private, f"{name}.")
        self.optimizer, self._epoch = self._optimizer(self.private, f"{name}."), 0
        yield
        self.private.update({f"{name}.{key}": vector.clone() for key, vector in self._model().items()})
        self.private.update(self._optimizer_state(f"{name}."))
        self.optimizer, self._epoch = optimizer, epoch
        self.adopt(main)

    def _optimizer(self, state: State, prefix: str) -> torch.optim.Optimizer:
        """The optimizer of all parameters, with what `state` holds for it."""
        return new_optimizer(self.training, self.round, self._moving(), state, f"{prefix}optimizer.")

    def _optimizer_state(self, prefix: str) -> State:
        return optimizer_state(self.optimizer, self._moving(), f"{prefix}optimizer.")

    def _moving(self) -> dict[str, nn.Parameter]:
        return {group: flat.vector for group, flat in self._flat.items() if flat.vector.numel()}

    def batches(self, epochs: int = 1) -> Iterator[Batch]:
        """The client's training slices, one epoch after another; every call goes on with the next epoch."""
        for _ in range(epochs):
            self._epoch += 1
            order = torch_stream(self.data.seed, "batches", self.client, self.round, self._epoch)
            yield from self.data.batches(self.training.batch_size, order, self._memory)

    def step(
        self,
        batch: Batch,
        *,
        loss: Callable[[Batch], Tensor] | None = None,
        regulariser: Callable[[], None] | None = None,
        groups: Collection[ParameterGroup] = PARAMETER_GROUPS,
    ) -> None:
        """One optimizer step.

        Args:
            batch: Training slices.
            loss: What to go down on; default that of `training.loss`.
            regulariser: May add to the gradients before the step.
            groups: The parameter groups that the step may change; the other is frozen.
        """
        for group, flat in self._flat.items():
            flat.prepare(group in groups)
        if loss is None:
            self.note("loss", self.differentiate(batch, groups))
        else:
            self._clear()
            self._backward(lambda: loss(batch))
        if regulariser is not None:
            regulariser()
        clip(self._flat.values(), self.training.clip_norm)
        self.descend()

    def differentiate(self, batch: Batch, groups: Collection[ParameterGroup]) -> Tensor:
        """Put the gradients of the loss where the parameters' are.

        Args:
            batch: Training slices.
            groups: Those that need gradients.

        Returns:
            The loss, a scalar on the device.
        """
        self._clear()
        way = (self.training.precision, self.modes, *(group for group in PARAMETER_GROUPS if group in groups))
        changed = [flat.gradient for flat in self._flat.values()] + [flat.vector for flat in self._buffers.values()]
        return self._graphs(way, self._down_on_loss, *batch.inputs, batch.target, changed=changed)

    def descend(self) -> None:
        """Let the optimizer change the parameters by their gradients."""
        self.optimizer.step()

    def _clear(self) -> None:
        for flat in self._flat.values():
            flat.gradient.zero_()

    def _down_on_loss(self, *inputs: Tensor) -> Tensor:
        return self._backward(lambda: self.training.loss(self.network(*inputs[:-1]), inputs[-1]))

    def _backward(self, loss: Callable[[], Tensor]) -> Tensor:
        with arithmetic(self.device, self.training.precision) as forward:
            with forward:
                value = loss()
            value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    def reconstruct(self, *inputs: Tensor) -> Tensor:
        """Magnitude (B, H, W) of `Batch.inputs`, without gradients."""
        return self._graphs(("reconstruct", self.modes), self.network, *inputs)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss of the network's output (B, H, W), noted as that of this step."""
        error = self.training.loss(output, batch.target)
        self.note("loss", error.detach())
        return error

    def note(self, name: str, value: float | Tensor) -> None:
        """Record a quantity of this step for the ledger; a scalar on a GPU is read when the client has finished."""
        kept = value.detach() if isinstance(value, Tensor) and value.is_cuda else float(value)
        self.notes.setdefault(name, []).append(kept)

    def read(self, lists: Scalars) -> list[NDArray[np.float64]]:
        """Notes and the like as numbers, list by list (S,); all that are on a GPU in one copy, which waits for it."""
        return numbers(lists)
