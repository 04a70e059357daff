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


def mean(vectors: list[Tensor], weights: list[int]) -> Tensor:
    """The weighted mean."""
    return torch.stack([weight * vector for weight, vector in zip(weights, vectors, strict=True)]).sum(0) / sum(weights)


def fedbuff(server: Tensor, buffer: int, counts: dict[str, int]) -> Tensor:
    """Algorithm 1 of Nguyen et al. (2022) with s(tau) = (1 + tau)^-0.5, weights by counts, and a server rate of 1."""
    queue: list[Turn] = []
    now, version, held, free = 0.0, 0, {}, {client: place for place, client in enumerate(LATENCIES)}
    changes: list[Tensor] = []
    weights: list[int] = []
    while version < STEPS:
        begin(queue, free, now, server, version)
        now, place, client, began, at = heapq.heappop(queue)
        held[client] = place
        changes.append((1 + version - at) ** -POWER * (trained(began, client) - began))
        weights.append(counts[client])
        if len(changes) == buffer:
            server, version = server + mean(changes, weights), version + 1
            free, held, changes, weights = {**free, **held}, {}, [], []
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


def regional(start: Tensor, rounds: int, every: int, counts: dict[str, int]) -> list[Tensor]:
    """Two servers that average their clients in every round, and then themselves in some; weights by counts."""
    servers, regions = [start, start], (("A.1", "A.2"), ("B", "C"))
    weights = [[counts[client] for client in clients] for clients in regions]
    for round_ in range(1, rounds + 1):
        servers = [
            mean([trained(server, client) for client in clients], own)
            for server, clients, own in zip(servers, regions, weights, strict=True)
        ]
        if round_ % every == 0:
            servers = [mean(servers, list(map(sum, weights)))] * 2
    return servers


@pytest.fixture
def pull(simulate: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """Runs a method that needs no data, on four clients whose turns take a given time."""
    (tmp_path / "pull.py").write_text(METHOD)
    latencies = enumerate(LATENCIES[name] for name in ("A.1", "B", "C"))
    return lambda *keys: simulate(
        "algorithm={name: 'pull:Pull'}", *(f"federation.sites.{at}.time={{latency_s: {own}}}" for at, own in latencies),
        "model={domain: image, channels: 2, pools: 1}", "metrics.every=0", "engine.checkpoint_every=0", *keys,
    )  # fmt: skip


def flat(run: Run, tensors: dict[str, np.ndarray]) -> Tensor:
    """Shared parameters (P,) by name as one vector."""
    layout = make_learner(setup_of(run.runnable)).flat("shared")
    return layout.flatten({name: torch.from_numpy(array) for name, array in tensors.items()})


def start_of(run: Run) -> Tensor:
    """The shared parameters (P,) that all begin with."""
    return torch.from_numpy(make_learner(setup_of(run.runnable)).fresh_server()["shared"]).double()


def assert_equal(found: Tensor, expected: Tensor) -> None:
    """But for the roundings of float32."""
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=2e-6 * float(expected.abs().max()))


WEIGHTINGS = ["uniform", pytest.param("samples", marks=pytest.mark.slow)]


def counts(run: Run, weighting: str) -> dict[str, int]:
    """What clients weigh: the same, or as many as their slices, which are not the same."""
    slices = dict(run.clients[["client", "samples"]].itertuples(index=False))
    assert len({*slices.values()}) > 1
    return slices if weighting == "samples" else dict.fromkeys(slices, 1)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_buffered_is_fedbuff(pull: Callable[..., Run], weighting: str) -> None:
    keys = ("time={mode: buffered, buffer: 2, concurrency: 4}", f"training.rounds={STEPS}")
    run = pull(*keys, f"algorithm.weighting={weighting}")
    assert_equal(flat(run, load(run, STEPS, "shared")), fedbuff(start_of(run), 2, counts(run, weighting)))


@pytest.mark.slow
def test_asynchronous_is_fedasync(pull: Callable[..., Run]) -> None:
    run = pull("time={mode: asynchronous, concurrency: 4}", f"training.rounds={STEPS}")
    assert_equal(flat(run, load(run, STEPS, "shared")), fedasync(start_of(run), 0.6))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("rounds", [6, 7])
def test_regions_average_their_clients_and_then_themselves(
    pull: Callable[..., Run], rounds: int, weighting: str
) -> None:
    keys = ("time={hierarchy: {regions: 2, rounds_per_sync: 3}}", f"training.rounds={rounds}")
    run = pull(*keys, f"algorithm.weighting={weighting}")
    expected = regional(start_of(run), rounds, 3, counts(run, weighting))
    for client, region in (("A.2", 0), ("B", 1)):
        assert_equal(run.learner(client).shared, expected[region])
    synced = regional(start_of(run), 6, 3, counts(run, weighting))
    assert_equal(flat(run, load(run, rounds, "shared")), synced[0])
    vector = synced[0].numel() * 4
    sent = [2 * vector if round_ % 3 == 0 else 0 for round_ in range(1, rounds + 1)]
    assert run.rounds["region_uplink_bytes"].tolist() == run.rounds["region_downlink_bytes"].tolist() == sent
