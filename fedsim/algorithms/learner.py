"""One client's network, optimizer and data as an algorithm sees them, with parameters as flat vectors.

The parameters that an algorithm shares are views of one contiguous vector, the others of a second one, and so are their
gradients. Receiving, uploading, regularising and swapping clients are then single vector operations, and one working
network serves every client of an actor. Elementwise optimizers give the same numbers on the flat vectors as they do
parameter by parameter.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from fedsim.data.samples import Batch, ClientData
from fedsim.schema import Section
from fedsim.seeds import torch_stream

State = dict[str, Tensor]
"""A client's private state by name: `local`, `optimizer.<part>.<key>` and whatever the algorithm keeps."""


class Training(Section):
    """Local training. A site may override everything but rounds and participation."""

    rounds: int = Field(50, ge=1, description="Communication rounds.")
    local_epochs: int = Field(1, ge=1, description="Passes over a client's training slices in a round.")
    batch_size: int = Field(8, ge=1, description="Slices in a step.")
    optimizer: Literal["rmsprop", "adam", "sgd"] = Field("rmsprop", description="Optimizer; its state is private.")
    lr: float = Field(1e-4, gt=0, description="Learning rate of the first round.")
    lr_step: int = Field(0, ge=0, description="The learning rate falls every so many rounds; 0: never.")
    lr_gamma: float = Field(0.1, gt=0, le=1, description="Factor of the learning rate every lr_step rounds.")
    participation: float = Field(1.0, gt=0, le=1, description="Share of the clients drawn for each round.")

    def lr_in(self, round_: int) -> float:
        """The learning rate in a round (counted from 1); the schedule steps once a round."""
        return self.lr * self.lr_gamma ** ((round_ - 1) // self.lr_step) if self.lr_step else self.lr


_OPTIMIZERS = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class FlatParameters:
    """Some of a network's parameters as views of one vector (P,), their gradients as views of another."""

    def __init__(self, named: list[tuple[str, nn.Parameter]]) -> None:
        self.layout = [(name, p.shape) for name, p in named]
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for _, p in named]) if named else torch.zeros(0))
        self.gradient = torch.zeros_like(self.vector)
        self.vector.grad = self.gradient
        for (_, p), value, grad in zip(named, self.views(self.vector.data), self.views(self.gradient), strict=True):
            p.data, p.grad = value, grad

    def views(self, vector: Tensor) -> list[Tensor]:
        """`vector` (P,) cut into tensors of the parameters' shapes, without copying."""
        sizes = [shape.numel() for _, shape in self.layout]
        return [part.view(shape) for part, (_, shape) in zip(torch.split(vector, sizes), self.layout, strict=True)]

    def by_name(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of `vector` (P,) under the parameters' names."""
        return dict(zip((name for name, _ in self.layout), self.views(vector), strict=True))

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """The vector (P,) of tensors by name."""
        return torch.cat([tensors[name].reshape(-1) for name, _ in self.layout]) if self.layout else torch.zeros(0)


class Learner:
    """A working network that takes on one client after the other."""

    def __init__(self, network: nn.Module, shares: Callable[[str], bool]) -> None:
        named = list(network.named_parameters())
        self.network = network
        self._shared = FlatParameters([(name, p) for name, p in named if shares(name)])
        self._local = FlatParameters([(name, p) for name, p in named if not shares(name)])
        self._start = {"shared": self.shared.clone(), "local": self.local.clone()}
        self.private: State = {}
        """The state of the client in work; an algorithm may add vectors of its own."""

    @property
    def shared(self) -> Tensor:
        """The shared parameters (P,); assign with copy_."""
        return self._shared.vector.data

    @property
    def shared_gradient(self) -> Tensor:
        """Gradient (P,) of the loss in the shared parameters; valid inside a regulariser."""
        return self._shared.gradient

    @property
    def local(self) -> Tensor:
        """The parameters that stay with the client (Q,); assign with copy_."""
        return self._local.vector.data

    @property
    def shared_layout(self) -> FlatParameters:
        """Names and shapes within `shared`."""
        return self._shared

    @property
    def local_layout(self) -> FlatParameters:
        """Names and shapes within `local`."""
        return self._local

    def fresh_state(self) -> State:
        """The private state of a client that has not trained yet; all clients start alike."""
        return {"local": self._start["local"].clone()}

    def initial_shared(self) -> NDArray[np.float32]:
        """The shared parameters (P,) that every client starts from."""
        return self._start["shared"].numpy()

    def enter(self, state: State, data: ClientData, training: Training, round_: int, client: str) -> None:
        """Take on a client: its private parameters, optimizer state, data and random streams."""
        self.private, self.data, self.training = state, data, training
        self.client, self.round = client, round_
        self._epoch = 0
        self.statistics: dict[str, list[float]] = {"loss": []}
        self.local.copy_(state["local"])
        parts = {"shared": self._shared.vector, "local": self._local.vector}
        self._parts = {name: vector for name, vector in parts.items() if vector.numel()}
        self.optimizer = _OPTIMIZERS[training.optimizer](list(self._parts.values()), lr=training.lr_in(round_))
        for name, vector in self._parts.items():
            prefix = f"optimizer.{name}."
            kept = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if kept:
                self.optimizer.state[vector] = kept

    def leave(self) -> State:
        """The client's private state after its work."""
        state = {key: value for key, value in self.private.items() if not key.startswith("optimizer.")}
        state["local"].copy_(self.local)
        for name, vector in self._parts.items():
            kept = self.optimizer.state.get(vector, {})
            state.update({f"optimizer.{name}.{key}": value for key, value in kept.items() if value is not None})
        return state

    def batches(self) -> Iterator[Batch]:
        """One epoch of the client's training slices; every call is the next epoch."""
        self._epoch += 1
        return self.data.batches(
            self.training.batch_size, torch_stream(self.data.seed, "batches", self.client, self.round, self._epoch)
        )

    def step(self, batch: Batch, regulariser: Callable[[], None] | None = None) -> None:
        """One optimizer step on the mean squared error; `regulariser` may add to the gradients before it."""
        for part in (self._shared, self._local):
            part.gradient.zero_()
        loss = torch.nn.functional.mse_loss(self.network(batch.kspace, batch.mask), batch.target)
        loss.backward()  # type: ignore[no-untyped-call]
        if regulariser is not None:
            regulariser()
        self.optimizer.step()
        self.note("loss", float(loss.detach()))

    def note(self, name: str, value: float) -> None:
        """Record a quantity of this step for the ledger."""
        self.statistics.setdefault(name, []).append(value)
