"""The methods that keep more than a network, against their definitions: plain loops, as in averaging.py."""

from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, mse_loss

from fedsim.core.seeds import torch_stream
from tests.algorithms.conftest import Bench, Models, Reference, error, mean, put, state


def scaffold(b: Bench) -> Models:
    """Karimireddy et al., algorithm 1 with option II, for plain SGD and a server step of 1."""
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    x = state(b.network())
    c = {name: torch.zeros_like(tensor) for name, tensor in x.items()}
    own = {client.name: c for client in b.clients}
    for round_ in b.rounds:
        sent, changes = [], []
        for client in b.cohort(round_):
            net, optimizer, c_k = nets[client.name], optimizers[client.name], own[client.name]
            put(net, x)
            rate, K = b.begin_round(optimizer, client, round_), 0
            for batch in b.batches(client, round_):
                optimizer.zero_grad()
                error(net, batch).backward()
                for name, parameter in net.named_parameters():
                    parameter.grad += c[name] - c_k[name]
                optimizer.step()
                K += 1
            y = state(net)
            plus = {name: c_k[name] - c[name] + (x[name] - y[name]) / (K * rate) for name in x}
            sent.append(y)
            changes.append({name: plus[name] - c_k[name] for name in x})
            own[client.name] = plus
        x, change = mean(sent), mean(changes)
        c = {name: c[name] + len(sent) / len(b.clients) * change[name] for name in c}
    return dict.fromkeys(nets, x)


def feddyn(b: Bench) -> Models:
    """Acar et al., algorithm 1, the penalties through autograd."""
    alpha = b.workload.algorithm.alpha
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    server = state(b.network())
    h = {name: torch.zeros_like(tensor) for name, tensor in server.items()}
    gradients = {client.name: h for client in b.clients}
    for round_ in b.rounds:
        sent = []
        for client in b.cohort(round_):
            net, optimizer, g_k = nets[client.name], optimizers[client.name], gradients[client.name]
            put(net, server)
            b.begin_round(optimizer, client, round_)
            for batch in b.batches(client, round_):
                loss = error(net, batch)
                for name, parameter in net.named_parameters():
                    loss = loss - (g_k[name] * parameter).sum()
                    loss = loss + alpha / 2 * (parameter - server[name]).square().sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            sent.append(state(net))
            gradients[client.name] = {name: g_k[name] - alpha * (sent[-1][name] - server[name]) for name in g_k}
        h = {n: h[n] - alpha / len(b.clients) * sum(theta[n] - server[n] for theta in sent) for n in h}
        server = {name: tensor - h[name] / alpha for name, tensor in mean(sent).items()}
    return dict.fromkeys(nets, server)


def server_optimizer(b: Bench) -> Models:
    """Reddi et al., algorithm 2."""
    method = b.workload.algorithm
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    x = state(b.network())
    m = {name: torch.zeros_like(tensor) for name, tensor in x.items()}
    v = {name: torch.full_like(tensor, method.tau**2) for name, tensor in x.items()}
    for round_ in b.rounds:
        changes = []
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            put(net, x)
            b.begin_round(optimizer, client, round_)
            for batch in b.batches(client, round_):
                optimizer.zero_grad()
                error(net, batch).backward()
                optimizer.step()
            changes.append({name: tensor - x[name] for name, tensor in state(net).items()})
        for name, change in mean(changes).items():
            m[name] = method.beta1 * m[name] + (1 - method.beta1) * change
            if method.name == "fedadam":
                v[name] = method.beta2 * v[name] + (1 - method.beta2) * change**2
            elif method.name == "fedyogi":
                v[name] = v[name] - (1 - method.beta2) * change**2 * torch.sign(v[name] - change**2)
            else:
                v[name] = v[name] + change**2
            x[name] = x[name] + method.server_lr * m[name] / (v[name].sqrt() + method.tau)
    return dict.fromkeys(nets, x)


def ditto(b: Bench) -> Models:
    """Li et al., algorithm 1: FedAvg, and a personal model v for each client with lam/2 ||v - w||^2 in its loss."""
    nets, own = ({client.name: b.network() for client in b.clients} for _ in range(2))
    optimizers, own_optimizers = (
        {client.name: b.optimizer(models[client.name], client) for client in b.clients} for models in (nets, own)
    )
    w = state(b.network())
    for round_ in b.rounds:
        sent = []
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            put(net, w)
            b.begin_round(optimizer, client, round_)
            for batch in b.batches(client, round_):
                optimizer.zero_grad()
                error(net, batch).backward()
                optimizer.step()
            sent.append(state(net))
            personal, optimizer = own[client.name], own_optimizers[client.name]
            b.begin_round(optimizer, client, round_)
            for batch in b.batches(client, round_):
                loss = error(personal, batch)
                for name, parameter in personal.named_parameters():
                    loss = loss + b.workload.algorithm.lam / 2 * (parameter - w[name]).square().sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        w = mean(sent)
    return {"shared": w, **{name: state(net) for name, net in own.items()}}


def fl_mrcm(b: Bench) -> Models:  # noqa: PLR0915 - the whole of it in one piece
    """Guo et al., as fedsim states it: latent vectors, a discriminator for each ordered pair, targets in turn."""
    method, seed, names = b.workload.algorithm, b.workload.seed, [client.name for client in b.clients]
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    judges = {(source, target): b.discriminator(source, target) for source in names for target in names}
    kind = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[method.discriminator_optimizer]
    steps = {pair: kind(judge.parameters(), lr=method.discriminator_lr) for pair, judge in judges.items()}
    loss_of = {"mse": mse_loss, "l1": l1_loss}[b.workload.training.loss.name]
    server, net = state(b.network()), b.network()
    for round_ in b.rounds:
        features, sent = {}, []
        put(net, server)
        for client in (c for c in b.cohort(round_) if method.target in (None, c.name)):
            slices = client.data.batches(1, torch_stream(seed, "features", client.name, round_))
            latents = [net.with_latent(s.kspace, s.mask)[1] for s in islice(slices, method.feature_slices)]
            features[client.name] = torch.cat([looked_at(z, method.latent) for z in latents]).detach()
        for client in b.cohort(round_):
            net, optimizer = nets[client.name], optimizers[client.name]
            targets = [name for name in features if name != client.name]
            draws = {name: torch_stream(seed, "align", client.name, name, round_) for name in targets}
            put(net, server)
            b.begin_round(optimizer, client, round_)
            batches = list(b.batches(client, round_))
            for index, batch in enumerate(batches, start=(round_ - 1) * len(batches)):
                if not targets:
                    optimizer.zero_grad()
                    loss_of(net(batch.kspace, batch.mask), batch.target).backward()
                    optimizer.step()
                    continue
                target = targets[index % len(targets)]
                judge, step = judges[client.name, target], steps[client.name, target]
                output, latent = net.with_latent(batch.kspace, batch.mask)
                z = looked_at(latent, method.latent)
                loss = loss_of(output, batch.target) + method.lam * told_from(judge(z), 0.0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                drawn = torch.randint(len(features[target]), (len(z),), generator=draws[target])
                told = told_from(judge(z.detach()), 1.0) + told_from(judge(features[target][drawn]), 0.0)
                step.zero_grad()
                told.backward()
                step.step()
            sent.append(state(net))
        server = mean(sent)
    return dict.fromkeys(nets, server)


def looked_at(latent: Tensor, how: str) -> Tensor:
    """What a discriminator looks at (n, V), of features (B, C, h, w) of even h and w."""
    if how == "position":
        return latent.permute(0, 2, 3, 1).flatten(0, 2)
    top, bottom = latent.chunk(2, dim=2)
    quarters = [*top.chunk(2, dim=3), *bottom.chunk(2, dim=3)]
    return torch.stack([quarter.mean((2, 3)) for quarter in quarters], dim=-1).flatten(1)


def told_from(logits: Tensor, label: float) -> Tensor:
    """Cross-entropy of a discriminator's answers; 1 is the source, 0 the target."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


SGD = ("training.optimizer=sgd", "training.lr=0.1")
RMSPROP: tuple[str, ...] = ()  # the default
HALF, THREE_QUARTERS = "training.participation=0.5", "training.participation=0.75"
MRCM = (*RMSPROP, "algorithm.lam=1", "algorithm.discriminator_lr=0.01", "algorithm.feature_slices=3")
AUTHORS = (
    *("algorithm.lam=1", "algorithm.latent=pooled", "algorithm.discriminator_optimizer=rmsprop"),
    *("algorithm.discriminator_lr=0.01", "algorithm.target=B", "training.loss=l1", "training.participation=0.75"),
)
CASES: list[tuple[str, Reference, tuple[str, ...]]] = [
    ("scaffold", scaffold, (*SGD, HALF)),
    ("scaffold", scaffold, (*SGD, THREE_QUARTERS)),
    ("feddyn", feddyn, (*SGD, THREE_QUARTERS, "algorithm.alpha=0.1")),
    ("feddyn", feddyn, (*RMSPROP, HALF, "algorithm.alpha=0.1")),
    ("fedadam", server_optimizer, RMSPROP),
    ("fedyogi", server_optimizer, RMSPROP),
    ("fedadagrad", server_optimizer, RMSPROP),
    ("ditto", ditto, (*RMSPROP, "algorithm.lam=1")),
    ("fl_mrcm", fl_mrcm, MRCM),
    ("fl_mrcm", fl_mrcm, AUTHORS),
]
WRONG = [
    ("feddyn", feddyn, (*SGD, THREE_QUARTERS, "algorithm.alpha=0.1"), "algorithm.alpha=0.105"),
    ("fedadam", server_optimizer, RMSPROP, "algorithm.beta1=0.85"),
    ("fedyogi", server_optimizer, RMSPROP, "algorithm.beta2=0.98"),
    ("fedadagrad", server_optimizer, RMSPROP, "algorithm.tau=0.0011"),
    ("ditto", ditto, (*RMSPROP, "algorithm.lam=1"), "algorithm.lam=1.05"),
    ("fl_mrcm", fl_mrcm, MRCM, "algorithm.lam=1.05"),
    ("fl_mrcm", fl_mrcm, MRCM, "algorithm.discriminator_lr=0.011"),
    ("fl_mrcm", fl_mrcm, AUTHORS, "algorithm.target=C"),
    ("fl_mrcm", fl_mrcm, AUTHORS, "algorithm.discriminator_optimizer=adam"),
    ("scaffold", feddyn, (*SGD, HALF), "algorithm={name: feddyn, alpha: 1.0e-9}"),  # as good as FedAvg
]
