"""Each method against its definition, written as a plain loop over clients, batches and parameters in one process.

The loops use neither flat vectors nor the methods' classes: a network and a torch optimizer for each client, autograd
for every term, and means in float64. They take from `Bench` only what is the same for all methods.
"""

from collections.abc import Callable

import torch
from torch import nn

from fedsim.core.seeds import numpy_stream
from tests.algorithms.conftest import Bench, Models, Reference, error, mean, put, state


def isolated(b: Bench, begin: Callable[[nn.Module], object] = lambda net: None) -> Models:
    """Every client (or the one that has all data) for itself, from a network with which `begin` has done something."""
    models = {}
    for client in b.clients:
        net = b.network()
        begin(net)
        optimizer = b.optimizer(net, client)
        for round_ in b.rounds:
            b.begin_round(optimizer, client, round_)
            for batch in b.batches(client, round_):
                optimizer.zero_grad()
                error(net, batch).backward()
                optimizer.step()
        models[client.name] = state(net)
    return models


def transfer(b: Bench) -> Models:
    """One model travels; optimizers stay."""
    net = b.network()
    optimizers = {client.name: b.optimizer(net, client) for client in b.clients}
    for round_ in b.rounds:
        cohort = b.cohort(round_)
        for index in numpy_stream(b.workload.seed, "transfer", round_).permutation(len(cohort)):
            client = cohort[index]
            b.begin_round(optimizers[client.name], client, round_)
            for batch in b.batches(client, round_):
                net.zero_grad()
                error(net, batch).backward()
                optimizers[client.name].step()
    return {client.name: state(net) for client in b.clients}


def averaging(b: Bench, private: Callable[[str], bool] = lambda name: False) -> Models:
    """Means of everything but what is private; FedProx's pull where its mu is set."""
    algorithm = b.workload.algorithm
    mu = getattr(algorithm, "mu", 0.0)
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    server = state(b.network(), lambda name: not private(name))
    for round_ in b.rounds:
        sent, weights = [], []
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            put(net, server)
            b.begin_round(optimizer, client, round_)
            for batch in b.batches(client, round_):
                loss = error(net, batch)
                for name, parameter in net.named_parameters():
                    if mu:
                        loss = loss + mu / 2 * (parameter - server[name]).square().sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            sent.append(state(net, lambda name: not private(name)))
            weights.append(client.data.samples() if algorithm.weighting == "samples" else 1)
        server = mean(sent, weights)
    for net in nets.values():
        put(net, server)
    return {name: state(net) for name, net in nets.items()}


def fedbn(b: Bench) -> Models:
    """Private: scale, shift and running statistics of every norm layer."""
    norms = {name for name, module in b.network().named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    return averaging(b, lambda name: name.rpartition(".")[0] in norms)


def fedper(b: Bench) -> Models:
    """Private: the last level of the decoder and the last layer."""
    head = ("image.decoder.last.", "image.decoder.ups.level0.", "image.decoder.blocks.level0.")
    return averaging(b, lambda name: name.startswith(head))


def lg_fedavg(b: Bench) -> Models:
    """Private: the encoder."""
    return averaging(b, lambda name: name.startswith("image.encoder."))


def fedrep(b: Bench) -> Models:
    """The decoder moves in the first half of a round's steps, the encoder in the second; the encoder is averaged."""
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    server = state(b.network(), lambda name: ".encoder." in name)
    for round_ in b.rounds:
        sent = []
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            put(net, server)
            b.begin_round(optimizer, client, round_)
            batches = list(b.batches(client, round_))
            first = round(b.workload.algorithm.head_share * len(batches))
            for index, batch in enumerate(batches):
                net.image.encoder.requires_grad_(index >= first)
                net.image.decoder.requires_grad_(index < first)
                optimizer.zero_grad()
                error(net, batch).backward()
                optimizer.step()
            sent.append(state(net, lambda name: ".encoder." in name))
        server = mean(sent)
    for net in nets.values():
        put(net, server)
    return {name: state(net) for name, net in nets.items()}


def fedmri(b: Bench) -> Models:
    """Encoders are averaged; beta P / N pulls them together from round 2 on, but for the first batch of an epoch."""
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    server, previous = state(b.network(), lambda name: ".encoder." in name), []
    for round_ in b.rounds:
        sent = []
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            put(net, server)
            b.begin_round(optimizer, client, round_)
            for epoch in b.epochs(client, round_):
                for index, batch in enumerate(epoch):
                    loss = error(net, batch)
                    if previous and index:
                        encoder = [(n, p) for n, p in net.named_parameters() if n in server]
                        near = sum((p - server[n]).abs().sum() for n, p in encoder)
                        far = sum((p - other[n]).abs().sum() for other in previous for n, p in encoder)
                        loss = loss + b.workload.algorithm.beta * near / (far + 1e-14)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            sent.append(state(net, lambda name: ".encoder." in name))
        server, previous = mean(sent), sent
    for net in nets.values():
        put(net, server)
    return {name: state(net) for name, net in nets.items()}


DRAWN = "training.participation=0.75"
BATCH = "model.norm=batch"
# Nothing set: RMSprop, everybody drawn
CASES: list[tuple[str, Reference, tuple[str, ...]]] = [
    ("single", isolated, ()),
    ("single", isolated, (BATCH,)),
    ("centralised", isolated, ()),
    ("transfer", transfer, (DRAWN,)),
    ("fedavg", averaging, ()),
    ("fedavg", averaging, (DRAWN, "algorithm.weighting=samples")),
    ("fedavg", averaging, (BATCH,)),
    ("fedprox", averaging, ("algorithm.mu=1",)),
    ("fedbn", fedbn, (BATCH,)),
    ("fedper", fedper, ("model.pools=2",)),
    ("lg_fedavg", lg_fedavg, ()),
    ("fedrep", fedrep, ()),
    ("fedmri", fedmri, ("algorithm.beta=100",)),
]
WRONG = [
    ("fedprox", averaging, ("algorithm.mu=1",), "algorithm.mu=1.05"),
    ("fedrep", fedrep, (), "algorithm.head_share=0.3"),
    ("fedmri", fedmri, ("algorithm.beta=100",), "algorithm.beta=105"),
    ("lg_fedavg", averaging, (), ""),
    ("fedbn", averaging, (BATCH,), ""),
]
