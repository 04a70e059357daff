"""Which clients share an actor, and on which node: as `engine.clients_per_actor` says, before any actor is there."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from fedsim.config import Engine
from fedsim.engine.client import ClientSpec
from fedsim.engine.schedule import spread
from fedsim.errors import InputError
from fedsim.resources import Resources


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, as Ray counts what it has."""

    id: str
    cpus: float
    gpus: float
    memory: float

    def places(self, needs: Resources, threads: int, device: str) -> int:
        """How many clients with such needs can train at once here; where any can, at least one."""
        if device == "cuda":
            share = gpus_of(needs, device)  # Ray gives a part of one GPU, or whole ones
            whole = math.floor(self.gpus)
            return 0 if not share else whole // math.ceil(share) if share >= 1 else whole * math.floor(1 / share)
        return max(1, math.floor(self.cpus / (needs.cpus or threads)))


@dataclass(frozen=True)
class Place:
    """An actor to be: its clients, the number of its node, and what it takes there."""

    node: int
    pinned: bool
    """Whether it must be there, or Ray may choose another node."""
    clients: tuple[ClientSpec, ...]
    cpus: float
    gpus: float
    memory: float
    """Bytes that Ray reserves for it."""


def granted(engine: Engine, nodes: Sequence[Node]) -> list[Node]:
    """What `engine.nodes` and `engine.cores` leave of the nodes: the first ones, with cores in turn.

    Raises:
        InputError: there are not so many.
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


def placed(engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node], device: str) -> list[Place]:
    """The actors of a run; where the nodes are left to Ray, in turn over all of them.

    With `clients_per_actor: auto` there is none where no node has the GPUs that its clients ask for.

    Args:
        engine: Says how many clients an actor has.
        clients: The federation's.
        nodes: Of the cluster.
        device: Where clients train.
    """
    if engine.backend == "serial":
        return [Place(0, True, tuple(clients), 0, 0, 0)]
    limited = engine.nodes is not None or engine.cores is not None  # Ray would choose among all nodes
    groups = _pinned(engine, clients, nodes, device) if engine.clients_per_actor == "auto" else _cut(engine, clients)
    return [
        Place(
            number % len(nodes) if node is None else node,
            node is not None or limited,
            tuple(group),
            *_takes(engine, group, device),
        )
        for number, (node, group) in enumerate(groups)
    ]


def device_of(engine: Engine, nodes: Sequence[Node]) -> str:
    """Where clients train."""
    if engine.backend == "serial":
        return "cuda" if engine.device == "cuda" else "cpu"
    return "cuda" if engine.device != "cpu" and any(node.gpus for node in nodes) else "cpu"


def gpus_of(needs: Resources, device: str) -> float:
    """GPUs that an actor of clients with such needs reserves."""
    return 0.0 if device == "cpu" else 1.0 if needs.gpus is None else needs.gpus


def _takes(engine: Engine, group: Sequence[ClientSpec], device: str) -> tuple[float, float, float]:
    cpus = max(client.resources.cpus or engine.threads for client in group)
    gpus = max(gpus_of(client.resources, device) for client in group)
    return cpus, gpus, 1e9 * max(client.resources.memory or 0 for client in group)


def _cut(engine: Engine, clients: Sequence[ClientSpec]) -> Iterator[tuple[None, Sequence[ClientSpec]]]:
    """So many clients an actor, in their order, those with unlike needs apart."""
    size = int(engine.clients_per_actor)
    for _, group in groupby(clients, lambda client: client.resources):
        alike = list(group)
        yield from ((None, alike[at : at + size]) for at in range(0, len(alike), size))


def _pinned(
    engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node], device: str
) -> Iterator[tuple[int, Sequence[ClientSpec]]]:
    """As many actors as can train at once, each on its node, with equal shares of the work."""
    alike: dict[Resources, list[ClientSpec]] = defaultdict(list)
    for client in clients:
        alike[client.resources].append(client)
    for needs, members in alike.items():
        counts = [node.places(needs, engine.threads, device) for node in nodes]
        places = [node for turn in range(max(counts)) for node, count in enumerate(counts) if turn < count]
        if places:
            yield from zip(places, spread(members, min(len(places), len(members))), strict=False)


def homeless(places: Sequence[Place], nodes: Sequence[Node]) -> list[Place]:
    """The actors that Ray would never start, since others have reserved the memory or the GPUs that they need."""
    memory = [node.memory for node in nodes]
    gpus = [[1.0] * math.floor(node.gpus) for node in nodes]
    left = []
    for place in places:
        candidates = [place.node] if place.pinned else range(len(nodes))
        fitting = [
            at for at in candidates if place.memory <= memory[at] and _free_gpus(gpus[at], place.gpus) is not None
        ]
        at = max(fitting, key=memory.__getitem__, default=None)
        if at is None:
            left.append(place)
            continue
        memory[at] -= place.memory
        for gpu in _free_gpus(gpus[at], place.gpus) or ():
            gpus[at][gpu] -= min(place.gpus, 1.0)
    return left


def _free_gpus(shares: Sequence[float], needed: float) -> list[int] | None:
    """GPUs of a node that have so much left: a part of one, or whole ones. None: there are not enough."""
    if not needed:
        return []
    count = math.ceil(needed)
    found = [gpu for gpu, share in enumerate(shares) if share + 1e-9 >= min(needed, 1.0)][:count]
    return found if len(found) == count else None
