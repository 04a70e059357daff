"""The controls of FedMRI's term against their definitions: plain loops, as in test_references.py."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from fedsim.engine.record.term import judge, ratio_by_round, term_warning
from tests.conftest import every

from .conftest import (
    Bench,
    Definitions,
    Models,
    Named,
    Reference,
    Simulate,
    error,
    mean,
    put,
    state,
)


def encoder(network: nn.Module) -> Named:
    return state(network, lambda name: ".encoder." in name)


def distance(net: nn.Module, other: Named) -> Tensor:
    """Sum of absolute differences of the encoders' parameters, differentiable."""
    return sum((p - other[n]).abs().sum() for n, p in net.named_parameters() if n in other)


def shared_encoder(b: Bench, term: Callable[[nn.Module, Named, list[Named]], Tensor | float]) -> Models:
    """Encoders are averaged; beta times a term from round 2 on, but for the first batch of an epoch.

    Args:
        b: What the loop is made of.
        term: Of a network, the server's encoder, and the negatives.
    """
    method = b.workload.algorithm
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    server, negatives, spreads = encoder(b.network()), list[Named](), list[float]()
    for round_ in b.rounds:
        sent = []
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            put(net, server)
            b.begin_round(optimizer, client, round_)
            for epoch in b.epochs(client, round_):
                for index, batch in enumerate(epoch):
                    loss = error(net, batch)
                    if round_ > 1 and index:
                        loss = loss + method.beta * term(net, server, negatives)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            sent.append(encoder(net))
        server = mean(sent)
        spreads.append(sum(float((one[name] - server[name]).abs().sum()) for one in sent for name in server))
        running = spreads[0]
        for spread in spreads[1:]:
            running = method.damping * running + (1 - method.damping) * spread
        factor = running / spreads[-1]
        negatives = [{name: server[name] + factor * (one[name] - server[name]) for name in server} for one in sent]
    for net in nets.values():
        put(net, server)
    return {name: state(net) for name, net in nets.items()}


def l1(b: Bench) -> Models:
    """P alone."""
    return shared_encoder(b, lambda net, server, negatives: distance(net, server))


def damped(b: Bench) -> Models:
    """P / N with the running mean of the spread in N."""

    def ratio(net: nn.Module, server: Named, negatives: list[Named]) -> Tensor:
        return distance(net, server) / (sum(distance(net, other) for other in negatives) + 1e-14)

    return shared_encoder(b, ratio)


def frozen_encoder(b: Bench) -> Models:
    """Every client's decoder alone."""
    models = {}
    for client in b.clients:
        net = b.network()
        optimizer = b.optimizer(net, client)
        net.image.encoder.requires_grad_(requires_grad=False)
        for round_ in b.rounds:
            b.begin_round(optimizer, client, round_)
            for batch in b.batches(client, round_):
                optimizer.zero_grad()
                error(net, batch).backward()
                optimizer.step()
        models[client.name] = state(net)
    return models


L1 = ("algorithm.term=l1", "algorithm.beta=1e-3")
DAMPED = ("algorithm.beta=100", "algorithm.damping=0.5", "training.rounds=4")
CASES: list[tuple[str, Reference, tuple[str, ...]]] = [
    ("fedmri", damped, DAMPED),
    ("fedmri", l1, L1),
    ("fedmri", l1, (*L1, "training.participation=0.75")),
    ("frozen_encoder", frozen_encoder, ()),
]
WRONG = [
    ("fedmri", l1, L1, "algorithm.beta=1.1e-3"),
    ("fedmri", damped, DAMPED, "algorithm.damping=0"),
    ("fedmri", damped, DAMPED, "algorithm.damping=0.55"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "reference", "keys"), every(3, CASES))
def test_equals_its_definition(
    definitions: Definitions, method: str, reference: Reference, keys: tuple[str, ...]
) -> None:
    definitions.agree(method, reference, keys)


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_a_slightly_other_definition_is_told_apart(definitions: Definitions, case: tuple[Any, ...]) -> None:
    definitions.differ(*case)


@pytest.mark.slow
def test_the_published_term_alternates_and_the_damped_one_does_not(simulate: Simulate) -> None:
    """On the phantoms of these tests, at the paper's beta; no claim about other data."""
    keys = (
        "algorithm.beta=100",
        "training.rounds=8",
        "training.batch_size=1",
        "training.lr_step=99",
        "metrics.every=0",
    )
    published, damped = (
        ratio_by_round(simulate("fedmri", *keys, f"algorithm.damping={damping}").clients) for damping in (0, 0.9)
    )
    assert judge(published["ratio"].tolist(), published["bound"].tolist()).alternates
    assert published["ratio"].max() > 20 * published["ratio"].min()
    assert term_warning(damped) is None
    assert damped["ratio"].max() < 3 * damped["ratio"].min()
    assert (damped["ratio"] < damped["bound"]).all(), "the bound holds for the damped term too"
