"""The controls of FedMRI's term against their definitions: plain loops, as in averaging.py."""

from collections.abc import Callable

from torch import Tensor, nn

from tests.algorithms.conftest import Bench, Models, Named, Reference, error, mean, put, state

from .averaging import isolated


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
    return isolated(b, lambda net: net.image.encoder.requires_grad_(requires_grad=False))


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
