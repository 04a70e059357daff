"""Norm layers: whose parameters and running statistics they are, and what becomes of them."""

import time
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch

from fedsim.engine.federation import assemble
from fedsim.engine.host.host import Host
from fedsim.engine.host.messages import Train, Validate
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.models.base import is_norm
from fedsim.models.reconstruction import UNetModel
from fedsim.models.unet import Norm
from fedsim.workload.schema import Workload

from .conftest import Simulate, bench, clients, everything, load, mean, put, state

BATCH = "model.norm=batch"


def by_name(run: Run, vector: np.ndarray) -> dict[str, np.ndarray]:
    """Running statistics by name: they lie in the network's order."""
    buffers = [(n, b) for n, b in run.model("A.1").named_buffers() if b.is_floating_point()]
    parts = np.split(vector, np.cumsum([b.numel() for _, b in buffers])[:-1])
    return dict(zip((name for name, _ in buffers), parts, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_shared_running_statistics_are_averaged(
    simulate: Simulate, workload: Callable[..., Workload], weighting: str
) -> None:
    """Round 1, batch after batch by hand: each client's statistics in training mode, then their weighted mean."""
    keys = (BATCH, "training.rounds=1", f"algorithm.weighting={weighting}")
    b, run = bench(workload("fedavg", *keys)), simulate("fedavg", *keys)
    sent = []
    for client in b.clients:
        net = b.network()
        optimizer = b.optimizer(net, client)
        for batch in b.batches(client, 1):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(batch.kspace, batch.mask), batch.target).backward()
            optimizer.step()
        sent.append(state(net, lambda name: "running" in name))
    weights = [float(client.data.samples()) if weighting == "samples" else 1.0 for client in b.clients]
    stored = by_name(run, load(run, 1, "server")["buffers"])
    for name, expected in mean(sent, weights).items():
        np.testing.assert_allclose(stored[name], expected, rtol=1e-5, atol=1e-7)
    assert (weighting == "samples") == (len(set(weights)) > 1)


@pytest.mark.slow
def test_private_running_statistics_stay_with_fedbns_clients(simulate: Simulate) -> None:
    fedbn, fedavg = simulate("fedbn", BATCH), simulate("fedavg", BATCH)
    assert "buffers" not in load(fedbn, 3, "server")
    own = [load(fedbn, 3, f"clients/{name}")["state.local_buffers"] for name in clients(fedbn)]
    assert all((one != other).any() for i, one in enumerate(own) for other in own[:i])
    assert not any("buffers" in name for name in load(fedavg, 3, "clients/B"))
    shared = 4 * sum(array.size for array in load(fedbn, 3, "shared").values())
    assert (fedbn.clients["uplink_bytes"] == shared).all()
    statistics = load(fedavg, 3, "server")["buffers"].nbytes
    norms = sum(a.nbytes for name, a in load(fedavg, 3, "shared").items() if is_norm(name))
    assert statistics == norms, "mean and variance beside scale and shift"
    assert (fedavg.clients["uplink_bytes"] == shared + norms + statistics).all()


@pytest.mark.slow
def test_a_shared_encoders_statistics_travel_and_the_decoders_do_not(simulate: Simulate) -> None:
    run = simulate("fedmri", BATCH)
    network = dict(run.model("B", "last").named_buffers())
    running = {name: b.numel() for name, b in network.items() if b.is_floating_point()}
    encoder = sum(size for name, size in running.items() if ".encoder." in name)
    assert load(run, 3, "server")["buffers"].size == encoder
    assert load(run, 3, "clients/B")["state.local_buffers"].size == sum(running.values()) - encoder


@pytest.mark.slow
def test_clients_of_one_host_do_not_touch_each_other(workload: Callable[..., Workload]) -> None:
    """Single, batch norm: four clients in one working network as each has a host to itself."""
    one = workload("single", BATCH)
    specs, setup = assemble(one).clients, setup_of(one)
    together, nothing = Host(setup, specs), {"shared": np.zeros(0, np.float32)}
    alone = {spec.name: Host(setup, (spec,)) for spec in specs}
    everybody, weights = tuple(alone), dict.fromkeys(alone, 1.0)
    for round_ in (1, 2, 3):
        order = Train(clients=everybody, round=round_, phase="train", since=time.time(), weights=weights)
        list(together.handle(order))
        list(together.handle(Validate(clients=everybody, round=round_, since=time.time()), nothing))
        for name, host in alone.items():
            list(host.handle(order.for_clients((name,))))
    for name, host in alone.items():
        ours, theirs = together._states.take(name), host._states.take(name)
        assert ours.keys() == theirs.keys() >= {"local", "local_buffers"}
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedavg", "fedbn"])
def test_evaluation_uses_running_statistics(simulate: Simulate, workload: Callable[..., Workload], method: str) -> None:
    """A slice comes out the same, whatever slices are beside it; in training mode it would not."""
    network = simulate(method, BATCH).model("C", "last")
    b = bench(workload(method, BATCH, "training.batch_size=4"))
    batch = next(b.batches(b.clients[-1], 1))
    with torch.no_grad():
        together = network(batch.kspace, batch.mask)
        apart = torch.cat([network(batch.kspace[[i]], batch.mask[[i]]) for i in range(4)])
        torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
        network.train()
        assert (network(batch.kspace, batch.mask) - together).abs().max() > 1e-2


@pytest.mark.slow
def test_the_deployed_network_has_the_clients_own_statistics(simulate: Simulate) -> None:
    run = simulate("fedbn", BATCH)
    network, stored = run.model("B", "last"), load(run, 3, "clients/B")
    flat = torch.cat([b.flatten() for name, b in network.named_buffers() if b.is_floating_point()])
    np.testing.assert_array_equal(flat.numpy(), stored["state.local_buffers"])
    assert not network.training


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedavg", "fedbn", "ditto"])
def test_integers_never_travel_and_are_not_kept(
    simulate: Simulate, workload: Callable[..., Workload], method: str
) -> None:
    stored = everything(simulate(method, BATCH), 3)
    assert not any("num_batches" in name for name in stored)
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float32)}
    network = make_learner(setup_of(workload(method, BATCH))).network
    assert any(not b.is_floating_point() for b in network.buffers()), "batch norm counts its batches"


@pytest.mark.parametrize("domain", ["image", "dual"])
@pytest.mark.parametrize("norm", get_args(Norm))
def test_every_parameter_learns(workload: Callable[..., Workload], norm: str, domain: str) -> None:
    b = bench(workload("single", f"model.norm={norm}", f"model.domain={domain}"))
    network = b.network()
    draws = torch.Generator().manual_seed(1)
    put(network, {n: p + 0.01 * torch.randn(p.shape, generator=draws) for n, p in state(network).items()})
    batch = next(b.batches(b.clients[0], 1))
    network(batch.kspace, batch.mask).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(("norm", "parameters", "statistics"), [("instance", 0, 0), ("affine", 2, 0), ("batch", 2, 2)])
def test_norm_layers_add_what_they_say(norm: str, parameters: int, statistics: int) -> None:
    """Vectors a norm layer, of its channels' size."""
    plain, network = (UNetModel.model_validate({"norm": n, "channels": 4}).network() for n in ("instance", norm))
    widths = [m.num_features for m in plain.modules() if isinstance(m, torch.nn.InstanceNorm2d)]
    added = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == parameters * sum(widths)
    assert sum(b.numel() for b in network.buffers() if b.is_floating_point()) == statistics * sum(widths)
    assert all(is_norm(name) for name, b in network.named_buffers())
