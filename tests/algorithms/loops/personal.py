"""Personal models against their definitions: plain loops, as in averaging.py."""

import math

import torch

from tests.algorithms.conftest import Bench, Models, Named, Reference, error, mean, put, state

FINEST = ("image.decoder.last.", "image.decoder.ups.level0.", "image.decoder.blocks.level0.")
LAST = ("image.decoder.last.",)


def _is(name: str, beginnings: tuple[str, ...]) -> bool:
    return name.startswith(beginnings)


def apfl(b: Bench) -> Models:
    """What clients use, and the server's model."""
    return apfl_and_alphas(b)[0]


def apfl_and_alphas(b: Bench) -> tuple[Models, dict[str, float]]:
    """Deng et al., algorithm 1, alpha by one step a round; gradients in v and alpha through autograd."""
    method = b.workload.algorithm
    nets = {client.name: b.network() for client in b.clients}
    own = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    own_optimizers = {client.name: b.optimizer(own[client.name], client) for client in b.clients}
    alphas = {client.name: torch.tensor(method.alpha) for client in b.clients}
    server, mixture = state(b.network()), b.network()
    for round_ in b.rounds:
        sent = []
        for client in b.cohort(round_):
            w, v, alpha = nets[client.name], own[client.name], alphas[client.name]
            put(w, server)
            rate = b.begin_round(optimizers[client.name], client, round_)
            b.begin_round(own_optimizers[client.name], client, round_)
            for index, batch in enumerate(b.batches(client, round_)):
                alpha.requires_grad_()
                mixed = {
                    name: alpha * parameter + (1 - alpha) * dict(w.named_parameters())[name].detach()
                    for name, parameter in v.named_parameters()
                }
                output = torch.func.functional_call(mixture, mixed, (batch.kspace, batch.mask))
                own_optimizers[client.name].zero_grad()
                torch.nn.functional.mse_loss(output, batch.target).backward()
                slope = alpha.grad
                alpha = alpha.detach()
                own_optimizers[client.name].step()
                optimizers[client.name].zero_grad()
                error(w, batch).backward()
                optimizers[client.name].step()
                if method.adaptive and not index:
                    alpha = (alpha - rate * slope).clamp(0, 1)
            alphas[client.name] = alpha
            sent.append(state(w))
        server = mean(sent)
    mixtures = {
        name: {key: alphas[name] * theirs + (1 - alphas[name]) * server[key] for key, theirs in state(v).items()}
        for name, v in own.items()
    }
    return {"shared": server, **mixtures}, {name: float(alpha) for name, alpha in alphas.items()}


def fedala(b: Bench) -> Models:
    """Zhang et al., algorithm 1: the weights go down the loss of the mixture, through autograd."""
    method = b.workload.algorithm
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    weights = dict[str, Named]()
    trained = set[str]()
    server = state(b.network())
    for round_ in b.rounds:
        sent = []
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            before, epochs = state(net), 0
            put(net, server)
            if client.name in trained:
                first = client.name not in weights
                W = weights.setdefault(
                    client.name, {n: torch.ones_like(t) for n, t in server.items() if _is(n, FINEST)}
                )
                batches = list(next(b.epochs(client, round_)))
                for _ in range(method.ala_epochs if first else 1):
                    for batch in batches[: math.ceil(method.ala_share * len(batches))]:
                        for one in W.values():
                            one.requires_grad_()
                        loss = torch.nn.functional.mse_loss(
                            torch.func.functional_call(net, mixed(before, server, W), (batch.kspace, batch.mask)),
                            batch.target,
                        )
                        slopes = torch.autograd.grad(loss, list(W.values()))
                        for name, slope in zip(list(W), slopes, strict=True):
                            W[name] = (W[name].detach() - method.ala_lr * slope).clamp(0, 1)
                put(net, mixed(before, server, W))
                epochs = 1
            trained.add(client.name)
            b.begin_round(optimizer, client, round_)
            for epoch in b.epochs(client, round_, skipped=epochs):
                for batch in epoch:
                    optimizer.zero_grad()
                    error(net, batch).backward()
                    optimizer.step()
            sent.append(state(net))
        server = mean(sent)
    ends = {name: mixed(state(net), server, weights.get(name, {})) for name, net in nets.items()}
    return {"shared": server, **ends}


def mixed(own: Named, server: Named, weights: Named) -> Named:
    """The server's model, and between the client's and it where there are weights."""
    between = {name: own[name] + (server[name] - own[name]) * weight for name, weight in weights.items()}
    return {**server, **between}


def tuned(b: Bench, private: tuple[str, ...] = (), head_share: float | None = None) -> Models:
    """FedAvg of all but what is private; then every client trains on from the result, alone or its private part alone.

    Args:
        b: What the loop is made of.
        private: What is, by the beginning of names.
        head_share: With FedRep's alternation: the share of steps in which it moves alone.
    """
    tune_epochs = getattr(b.workload.algorithm, "tune_epochs", 0)
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    server = state(b.network(), lambda name: not _is(name, private))
    models = Models()
    for round_ in b.rounds:
        sent = []
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            put(net, server)
            b.begin_round(optimizer, client, round_)
            batches = list(b.batches(client, round_))
            first = None if head_share is None else round(head_share * len(batches))
            for index, batch in enumerate(batches):
                for name, parameter in net.named_parameters():
                    parameter.requires_grad_(first is None or (index < first) == _is(name, private))
                optimizer.zero_grad()
                error(net, batch).backward()
                optimizer.step()
            sent.append(state(net, lambda name: not _is(name, private)))
        server = mean(sent)
    for client in b.clients:
        net = nets[client.name]
        put(net, server)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(head_share is None or _is(name, private))
        optimizer = b.optimizer(net, client)
        b.begin_round(optimizer, client, b.rounds[-1])
        for epoch in range(tune_epochs):
            for batch in list(b.epochs(client, b.rounds[-1]))[epoch]:
                optimizer.zero_grad()
                error(net, batch).backward()
                optimizer.step()
        models[client.name] = state(net)
    return models


def fedrep(b: Bench) -> Models:
    """The last layer is private, and alone in the first part of a round's steps and in the fine-tuning."""
    return tuned(b, LAST, b.workload.algorithm.head_share)


def fedper(b: Bench) -> Models:
    """The last layer is private."""
    return tuned(b, LAST)


SGD = ("training.optimizer=sgd", "training.lr=0.1")
DRAWN = "training.participation=0.75"
ALA = ("algorithm.ala_lr=1e4", "algorithm.ala_epochs=3", "algorithm.ala_share=0.6", DRAWN)
REP = ("algorithm.head=[decoder.last]", "algorithm.head_share=0.8", "algorithm.tune_epochs=2", "training.lr=5e-3")
CASES: list[tuple[str, Reference, tuple[str, ...]]] = [
    ("apfl", apfl, (*SGD, DRAWN)),
    ("apfl", apfl, ("algorithm.alpha=0.75", "algorithm.adaptive=false")),
    ("fedala", fedala, ALA),
    ("fedavg", tuned, ("algorithm.tune_epochs=1",)),
    ("fedrep", fedrep, REP),
    ("fedper", fedper, ("algorithm.head=[decoder.last]",)),
]
WRONG = [
    ("apfl", apfl, (*SGD, DRAWN), "algorithm.alpha=0.52"),
    ("fedala", fedala, ALA, "algorithm.ala_lr=1.1e4"),
    ("fedala", fedala, ALA, "algorithm.ala_epochs=4"),
    ("fedavg", tuned, ("algorithm.tune_epochs=1",), "algorithm.tune_epochs=2"),
    ("fedrep", fedrep, REP, "algorithm.head_share=0.5"),
    ("fedrep", fedrep, REP, "algorithm.tune_epochs=1"),
]
