"""FedBuff and FedAsync against plain event loops, which know nothing of the engine but the initial parameters."""

import heapq
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.workload.schema import Workload
from tests.engine.conftest import load

STEPS, RATE, POWER = 50, 0.2, 0.5
LATENCIES = {"A.1": 1.0, "A.2": 1.0, "B": 2.7, "C": 4.1}
METHOD = f"""
import torch

from fedsim.algorithms.base import Algorithm


class Pull(Algorithm):
    def train(self, learner, received, phase):
        self.receive(learner, received)
        goal = torch.randn(learner.shared.shape, generator=torch.Generator().manual_seed(ord(learner.client[-1])))
        learner.shared.add_(goal - learner.shared, alpha={RATE})
        return {{"shared": learner.shared}}
"""


def trained(start: Tensor, client: str) -> Tensor:
    """What a client makes of parameters (P,)."""
    goal = torch.randn(start.shape, generator=torch.Generator().manual_seed(ord(client[-1])))
    return start + RATE * (goal - start)


Turn = tuple[float, int, str, Tensor, int]
"""End, place in the federation, client, the parameters it began with, and the steps that the server had done then."""


def begin(queue: list[Turn], free: dict[str, int], now: float, server: Tensor, version: int) -> None:
    """Let those that are free begin, unless others end at this very moment, who come first."""
    if not queue or queue[0][0] > now:
        for client, place in free.items():
            heapq.heappush(queue, (now + LATENCIES[client], place, client, server, version))
        free.clear()


def fedbuff(server: Tensor, buffer: int) -> Tensor:
    """Algorithm 1 of Nguyen et al. (2022) with s(tau) = (1 + tau)^-0.5 and a server learning rate of 1."""
    queue: list[Turn] = []
    now, version, held, free = 0.0, 0, {}, {client: place for place, client in enumerate(LATENCIES)}
    changes: list[Tensor] = []
    while version < STEPS:
        begin(queue, free, now, server, version)
        now, place, client, began, at = heapq.heappop(queue)
        held[client] = place
        changes.append((1 + version - at) ** -POWER * (trained(began, client) - began))
        if len(changes) == buffer:
            server, version = server + torch.stack(changes).mean(0), version + 1
            free, held, changes = {**free, **held}, {}, []
    return server


def fedasync(server: Tensor, mixing: float) -> Tensor:
    """Algorithm 1 of Xie et al. (2019) with s(tau) = (1 + tau)^-0.5."""
    queue: list[Turn] = []
    now, version, free = 0.0, 0, {client: place for place, client in enumerate(LATENCIES)}
    while version < STEPS:
        begin(queue, free, now, server, version)
        now, place, client, began, at = heapq.heappop(queue)
        free[client] = place
        alpha = mixing * (1 + version - at) ** -POWER
        server, version = (1 - alpha) * server + alpha * trained(began, client), version + 1
    return server


@pytest.mark.parametrize("mode", ["buffered", "asynchronous"])
def test_is_the_plain_loop(
    workload: Callable[..., Workload], simulate: Callable[..., Run], tmp_path: Path, mode: str
) -> None:
    (tmp_path / "pull.py").write_text(METHOD)
    sites = [
        f"federation.sites.{at}.time={{latency_s: {LATENCIES[name]}}}" for at, name in enumerate(["A.1", "B", "C"])
    ]
    time = (
        "{mode: buffered, buffer: 2, concurrency: 4}" if mode == "buffered" else "{mode: asynchronous, concurrency: 4}"
    )
    keys = (
        "algorithm.name=pull:Pull", f"time={time}", *sites, f"training.rounds={STEPS}", "metrics.every=0",
        "engine.checkpoint_every=0", "model={domain: image, channels: 2, pools: 1}",
    )  # fmt: skip
    learner = make_learner(setup_of(workload(*keys)))
    start = torch.from_numpy(learner.fresh_server()["shared"]).double()
    expected = fedbuff(start, 2) if mode == "buffered" else fedasync(start, 0.6)
    found = learner.flat("shared").flatten(
        {name: torch.from_numpy(array) for name, array in load(simulate(*keys), STEPS, "shared").items()}
    )
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=2e-6 * float(expected.abs().max()))
