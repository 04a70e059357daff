"""Adapting a finished run's networks to a site that took no part: what stays, what is trained, and on which slices.

Tensors (parameters and running statistics) that differ between the clients' deployed networks are *private*, the others
are shared: under FedMRI the decoders are private, under FedBN the norm layers, under Ditto and `single` everything,
under FedAvg nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice, pairwise

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from fedsim.algorithms.base import ServerState
from fedsim.algorithms.learner import Learner, ParameterGroup
from fedsim.analysis.budgets import Budget
from fedsim.core.errors import InputError
from fedsim.core.seeds import numpy_stream
from fedsim.data.samples import ClientData
from fedsim.data.split import Part, Piece
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.training import initial_network, make_learner
from fedsim.engine.record.run_directory import Run, Which, setup_of
from fedsim.engine.state import checkpoint
from fedsim.models.base import is_encoder

_LOCAL: tuple[ParameterGroup, ...] = ("local",)
STEPS = (0, 5, 10, 25, 50, 100, 200, 400)
"""Numbers of optimizer steps after which the validation error is computed."""
Tensors = Mapping[str, Tensor]
"""A network's parameters and running statistics by name."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The networks that a run's clients use after one round."""

    run: Run
    round: int
    """Number of the round, from 1; 0 is the initial model."""
    clients: tuple[str, ...]
    """Names of the clients, in the federation's order."""
    mean: Tensors
    """Mean over clients; shared tensors equal those of every client."""
    private: frozenset[str]
    """Names of the tensors that differ between clients."""

    @property
    def moving(self) -> frozenset[str]:
        """Names of the tensors that a new site trains: the private part, or the decoder if nothing is private."""
        return self.private or frozenset(name for name in self.mean if not is_encoder(name))

    def networks(self) -> Iterator[tuple[str, nn.Module]]:
        """Every client's name and network, one at a time."""
        for client in self.clients:
            yield client, self.run.learner(client, self.round).network

    def learner(self) -> Learner:
        """A working network with the run's initial parameters; its local part is what a new site trains."""
        network = initial_network(setup_of(self.run.runnable))
        return Learner(network, lambda name: name not in self.moving)

    def network(self, tensors: Tensors) -> nn.Module:
        """The network in evaluation mode, with all tensors set to the given ones."""
        network = self.learner().network
        adopt(network, tensors)
        return network.eval()

    def shared_model(self) -> Tensors | None:
        """The shared network; None if only a part of the network is shared."""
        if not self.private:
            return self.mean
        learner = make_learner(setup_of(self.run.runnable))
        if learner.local.numel():
            return None
        server = self._server(learner)
        learner.shared.copy_(torch.from_numpy(server["shared"]))
        if "buffers" in server:
            learner.shared_buffers.copy_(torch.from_numpy(server["buffers"]))
        return tensors_of(learner.network)

    def _server(self, learner: Learner) -> ServerState:
        """What the server sends; where regions have servers of their own, the average that is theirs now."""
        state = checkpoint.read_state(self.run.path, self.round)
        server = checkpoint.read_server(self.run.path, state, learner.flat("shared"))
        time, regions = self.run.workload.time, checkpoint.read_others(self.run.path, state)
        if time is None or time.hierarchy is None or not regions:
            return server
        count = len(self.run.workload.client_names())
        counts = Counter(str(time.hierarchy.region(place, count)) for place in range(count))
        own, weights = [regions.get(region, server) for region in counts], list(counts.values())
        sent = [name for name in ("shared", "buffers") if name in server]
        return {n: np.average([one[n] for one in own], axis=0, weights=weights).astype(np.float32) for n in sent}


@dataclass(frozen=True)
class Adapted:
    """A network with its private part trained on a few slices of a new site."""

    network: nn.Module
    steps: int
    """Chosen."""
    errors: Mapping[int, float]
    """Mean squared error on the validation slices, by number of steps."""


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """A network's parameters and running statistics by name, sharing its memory; integers are left out."""
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def adopt(network: nn.Module, tensors: Tensors) -> None:
    """Set some of a network's parameters and running statistics."""
    own = tensors_of(network)
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def deployed(run: Run, which: Which = "best") -> Deployed:
    """The networks that a run's clients deploy: their mean, and where they differ.

    Raises:
        InputError: there is no such round.
    """
    round_ = run.round(which)
    clients = tuple(checkpoint.read_state(run.path, round_)["clients"])
    first = {name: t.clone() for name, t in tensors_of(run.learner(clients[0], round_).network).items()}
    total = {name: tensor.double() for name, tensor in first.items()}
    private: set[str] = set()
    for client in clients[1:]:
        for name, tensor in tensors_of(run.learner(client, round_).network).items():
            total[name] += tensor
            if not torch.equal(tensor, first[name]):
                private.add(name)
    mean = {name: (tensor / len(clients)).float() for name, tensor in total.items()}
    return Deployed(run=run, round=round_, clients=clients, mean=mean, private=frozenset(private))


def joined_network(run: Run, site: str, which: Which = "best") -> nn.Module:
    """The network of a site that joined a finished run with a private part trained on all its slices.

    Raises:
        InputError: the site has not joined, or joined after another round.
    """
    path = run.path / "unseen" / site / "tuned-all.safetensors"
    if not path.is_file():
        raise InputError(
            f"{site}: takes no part in {run.path}; let it join with `fedsim unseen {run.path} --slices all`"
        )
    models = deployed(run, which)
    with safe_open(path, framework="pt") as file:
        made = json.loads(file.metadata()["fedsim"])
        part = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if made["round"] != models.round:
        raise InputError(f"{path}: was trained for round {made['round']}; use --round {made['round']}")
    return models.network({**models.mean, **part})


def few_slices(data: ClientData, part: Part, budget: Budget) -> ClientData:
    """The data with only `budget` slices of a part, spread evenly over its subjects; all slices if there are fewer."""
    singles = [
        (Piece(volume=piece.volume, subject=piece.subject, start=index, stop=index + 1, part=part), support)
        for piece, support in zip(data.pieces, data.supports, strict=True)
        if piece.part == part
        for index in range(piece.start, piece.stop)
    ]
    chosen = len(singles) if budget == "all" else min(budget, len(singles))
    edges = [index * len(singles) // max(1, chosen) for index in range(chosen + 1)]
    key = ("few-shot", data.site, str(budget), *(() if part == "train" else (part,)))
    at = numpy_stream(data.seed, *key).integers(edges[:-1], edges[1:])
    return replace(data, pieces=tuple(singles[i][0] for i in at), supports=tuple(singles[i][1] for i in at))


@torch.inference_mode()
def error_on(network: nn.Module, data: ClientData, part: Part, size: int) -> float:
    """Mean squared error of the normalised slices of a part; infinite if it is not a number."""
    total, pixels = 0.0, 0
    for batch in (batch for volume in data.volumes(part, size) for batch in volume.batches):
        total += float((network(*batch.inputs) - batch.target).double().square().sum())
        pixels += batch.target.numel()
    return float(np.nan_to_num(total / pixels, nan=np.inf))


def adapt(models: Deployed, site: ClientSpec, tuned: bool, budget: Budget, steps: Sequence[int] = STEPS) -> Adapted:
    """Train the private part, or the decoder, on a few slices of a new site; shared tensors stay frozen.

    Args:
        models: The networks that the run's clients deploy.
        site: The new site.
        tuned: Start from the clients' mean instead of the initial parameters.
        budget: Training slices, and validation slices to choose the steps by.
        steps: Numbers of steps after which the validation error is computed, ascending.
    """
    (data,) = site.data.members
    train, val = few_slices(data, "train", budget), few_slices(data, "val", budget)
    learner = models.learner()
    learner.enter(learner.fresh_state(), train, site.training, 1, site.name)
    adopt(learner.network, {n: t for n, t in models.mean.items() if tuned or n not in models.moving})
    batches = chain.from_iterable(learner.batches() for _ in count())
    errors: dict[int, float] = {}
    best: Tensors = {}
    for done, target in pairwise((0, *(step for step in steps if step or tuned))):
        _train_mode(learner.network, models.moving)
        for batch in islice(batches, target - done):
            learner.step(batch, groups=_LOCAL)
        learner.network.eval()
        error = error_on(learner.network, val, "val", site.training.batch_size)
        if not errors or error < min(errors.values()):
            best = {name: tensor.clone() for name, tensor in tensors_of(learner.network).items()}
        errors[target] = error
    adopt(learner.network, best)
    return Adapted(learner.network, min(errors, key=errors.__getitem__), errors)


def _train_mode(network: nn.Module, moving: frozenset[str]) -> None:
    """Training mode for all layers except those with frozen running statistics."""
    network.train()
    for name, module in network.named_modules():
        own = [f"{name}.{buffer}" for buffer, _ in module.named_buffers(recurse=False)]
        if own and moving.isdisjoint(own):
            module.eval()
