"""A round of FedMRI without clients' data: stand-ins upload the encoders that they are given."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsim.algorithms.base import Phase, Received, ServerState
from fedsim.algorithms.fedmri import FedMRI
from fedsim.engine.host.sums import OrderFreeSum, largest

SIZE = 400
Encoders = list[Tensor]


class StandIn(SimpleNamespace):
    """What a method sees of a client: it has no data, so it uploads the encoder that it is given."""

    def __init__(self, encoder: Tensor, round_: int, private: dict[str, Tensor] | None = None) -> None:
        super().__init__(shared=torch.zeros(SIZE), shared_gradient=torch.zeros(SIZE), round=round_, noted={})
        self.staleness = 0
        self.private = {} if private is None else private
        self.training = SimpleNamespace(local_epochs=1)
        self.encoder = encoder

    def batches(self) -> list[int]:
        return [1, 2]

    def step(self, batch: int, regulariser: Any = None) -> None:
        self.shared.copy_(self.encoder)
        self.pulled = regulariser is not None
        if regulariser:
            regulariser()

    def note(self, name: str, value: float) -> None:
        self.noted[name] = value


def uploads(clients: int, deviation: float, seed: int = 0) -> tuple[np.ndarray, Encoders]:
    """A server vector of size 1 and clients' encoders about it."""
    generator = torch.Generator().manual_seed(seed)
    server = torch.randn(SIZE, generator=generator)
    return server.numpy(), [server + deviation * torch.randn(SIZE, generator=generator) for _ in range(clients)]


def a_round(
    method: FedMRI,
    server: ServerState,
    encoders: Encoders,
    weights: list[float] | None = None,
    groups: int = 1,
    mixing: float | None = None,
) -> ServerState:
    """Every client trains on `groups` hosts, whose sums are merged in backward order.

    With `mixing` their uploads are stale, and enter the server's encoder with this factor.
    """
    names = tuple(f"c{index}" for index in range(len(encoders)))
    weights = weights or [1 / len(encoders)] * len(encoders)
    vectors = {name: torch.from_numpy(vector) for name, vector in server.items()}
    sent = [method.train(StandIn(encoder, 1), vectors, "train") for encoder in encoders]
    sums = {upload.name: OrderFreeSum(SIZE, upload.grid) for upload in method.uploads("train")}
    for group in reversed(range(groups)):
        for upload in method.uploads("train"):
            partial = OrderFreeSum(SIZE, upload.grid)
            for index in range(group, len(encoders), groups):
                weight = weights[index] if upload.weighted else 1.0
                vector = sent[index][upload.name]
                partial.add(vector, weight, partial.check(vector, largest(vector), weight, names[index]))
            sums[upload.name].merge(partial.partial)
    collected = {u.name: [s[u.name].numpy() for s in sent] for u in method.uploads("train") if u.collected}
    totals = {name: total.total for name, total in sums.items()}
    if mixing is not None:
        totals["shared"] = mixing * totals["shared"] + (1 - mixing) * sum(weights) * server["shared"]
    found = {"sums": totals, "weight": sum(weights), "collected": collected, "population": len(names)}
    return method.update(server, Received(phase=Phase(names), stale=mixing is not None, **found))


def gradient_in_round_2(method: FedMRI, state: ServerState, theta: Tensor, private: dict[str, Tensor]) -> StandIn:
    client = StandIn(theta, 2, private)
    method.train(client, {name: torch.from_numpy(vector) for name, vector in state.items()}, "train")
    return client
