"""Which clients share an actor, and on which node: decided by `engine.clients_per_actor` before any actor exists."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from fedsim.core.errors import InputError
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.place.node import SMALLEST_SHARE, Node
from fedsim.engine.place.schedule import spread
from fedsim.workload.engine import Engine
from fedsim.workload.resources import Resources


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an actor will run, with which clients, and what Ray reserves for it there."""

    node: int
    """Index of its node."""
    pinned: bool
    """Whether it must run there; if not, Ray may choose another node."""
    clients: tuple[ClientSpec, ...]
    """Its clients, in the order of the federation."""
    cpus: float = 0.0
    """Cores."""
    gpus: float = 0.0
    """Number of GPUs; may be a share of one."""
    memory: float = 0.0
    """Memory [bytes]."""


def granted(engine: Engine, nodes: Sequence[Node]) -> list[Node]:
    """The nodes and cores that `engine.nodes` and `engine.cores` allow: the first nodes, cores taken from each in turn.

    Raises:
        InputError: there are fewer.
    """
    if engine.nodes is not None and engine.nodes > len(nodes):
        raise InputError(f"engine.nodes: {engine.nodes}, and the Ray cluster has {len(nodes)}; lower it")
    nodes = nodes[: engine.nodes]
    if engine.cores is None:
        return list(nodes)
    turns = [at for turn in range(engine.cores) for at, node in enumerate(nodes) if turn < math.floor(node.cpus)]
    if engine.cores > len(turns):
        raise InputError(f"engine.cores: {engine.cores}, and there are {len(turns)}; lower it")
    shares = Counter(turns[: engine.cores])
    return [replace(nodes[at], cpus=shares[at]) for at in sorted(shares)]


def placed(engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node]) -> list[Placement]:
    """The placements of a run's actors; where Ray chooses the nodes, they are counted over all nodes in turn.

    With `clients_per_actor: auto`, clients get no placement if no node has the GPUs that they ask for.

    Args:
        engine: Says how many clients share an actor.
        clients: The federation's.
        nodes: Of the cluster.
    """
    if engine.backend == "serial":
        return [Placement(node=0, pinned=True, clients=tuple(clients))]
    on_gpus = uses_gpus(engine, nodes)
    limited = engine.nodes is not None or engine.cores is not None  # Ray would choose among all nodes
    groups = _pinned(engine, clients, nodes) if engine.clients_per_actor == "auto" else _cut(engine, clients, nodes)
    turns = [at for at, node in enumerate(nodes) if node.gpus or not on_gpus]
    placements = [
        Placement(
            node=turns[number % len(turns)] if node is None else node,
            pinned=node is not None or limited,
            clients=tuple(group),
            **_reserves(engine, group, on_gpus),
        )
        for number, (node, group) in enumerate(groups)
    ]
    return _sharing(placements, nodes) if on_gpus else placements


def uses_gpus(engine: Engine, nodes: Sequence[Node]) -> bool:
    """Whether actors reserve GPUs; Ray assigns the GPUs that it counts, whether torch can use them or not."""
    return engine.backend == "ray" and engine.device != "cpu" and any(node.gpus for node in nodes)


def device_of(engine: Engine, nodes: Sequence[Node]) -> str:
    """torch's device for every client of a run: `cuda` on Ray where a node has GPUs that torch can use, else `cpu`."""
    if engine.backend == "serial":
        return "cuda" if engine.device == "cuda" else "cpu"
    return "cuda" if uses_gpus(engine, nodes) and any(node.gpus and node.cuda for node in nodes) else "cpu"


def _reserves(engine: Engine, group: Sequence[ClientSpec], on_gpus: bool) -> dict[str, float]:
    cpus = max(client.resources.cpus or engine.threads for client in group)
    gpus = max(client.resources.gpus or 0.0 for client in group) if on_gpus else 0.0
    return {"cpus": cpus, "gpus": gpus, "memory": 1e9 * max(client.resources.memory or 0 for client in group)}


def unasked(placement: Placement) -> bool:
    """Whether none of an actor's clients says how much of a GPU it needs."""
    return all(client.resources.gpus is None for client in placement.clients)


def _sharing(placements: Sequence[Placement], nodes: Sequence[Node]) -> list[Placement]:
    """The placements, those that ask for no GPUs with equal shares: the largest with which all actors fit."""
    count, gpus = sum(map(unasked, placements)), sum(math.floor(node.gpus) for node in nodes)
    parts, shared = max(1, math.ceil(count / max(gpus, 1))), list(placements)
    while count and parts <= 1 / SMALLEST_SHARE:
        share = math.floor(1 / parts / SMALLEST_SHARE) * SMALLEST_SHARE
        shared = [replace(placement, gpus=share) if unasked(placement) else placement for placement in placements]
        if not unplaced([replace(placement, memory=0.0) for placement in shared], nodes):
            break
        parts *= 2
    return shared


def _cut(
    engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node]
) -> Iterator[tuple[None, Sequence[ClientSpec]]]:
    """A fixed number of clients per actor, in order, grouped by needs; more where GPUs hold fewer actors."""
    size, most_actors = int(engine.clients_per_actor), sum(node.gpu_actors for node in nodes)
    sharing = [client for client in clients if client.resources.gpus is None]
    least = math.ceil(len(sharing) / most_actors) if most_actors and uses_gpus(engine, nodes) else 1
    for needs, group in groupby(clients, lambda client: client.resources):
        alike, most = list(group), max(size, least) if needs.gpus is None else size
        yield from ((None, alike[at : at + most]) for at in range(0, len(alike), most))


def _pinned(
    engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node]
) -> Iterator[tuple[int, Sequence[ClientSpec]]]:
    """As many actors as can train at once, each pinned to a node, with equal shares of the work."""
    alike: dict[Resources, list[ClientSpec]] = defaultdict(list)
    for client in clients:
        alike[client.resources].append(client)
    for needs, members in alike.items():
        counts = [node.slots(needs, engine.threads, uses_gpus(engine, nodes)) for node in nodes]
        slots = [node for turn in range(max(counts)) for node, count in enumerate(counts) if turn < count]
        if slots:
            yield from zip(slots, spread(members, min(len(slots), len(members))), strict=False)


def unplaced(placements: Sequence[Placement], nodes: Sequence[Node]) -> list[Placement]:
    """The placements that Ray could never fill, because others reserve the memory or the GPUs that they need."""
    memory = [node.actor_memory for node in nodes]
    gpus = [[1.0] * math.floor(node.gpus) for node in nodes]
    left = []
    for placement in sorted(placements, key=lambda placement: -placement.gpus):
        candidates = [placement.node] if placement.pinned else range(len(nodes))
        fitting = [
            at
            for at in candidates
            if placement.memory <= memory[at] and _free_gpus(gpus[at], placement.gpus) is not None
        ]
        at = max(fitting, key=memory.__getitem__, default=None)
        if at is None:
            left.append(placement)
            continue
        memory[at] -= placement.memory
        for gpu in _free_gpus(gpus[at], placement.gpus) or ():
            gpus[at][gpu] -= min(placement.gpus, 1.0)
    return left


def _free_gpus(shares: Sequence[float], needed: float) -> list[int] | None:
    """GPUs of a node with enough left, a share of one or whole ones; None if there are too few."""
    if not needed:
        return []
    count = math.ceil(needed)
    found = [gpu for gpu, share in enumerate(shares) if share + 1e-9 >= min(needed, 1.0)][:count]
    return found if len(found) == count else None
