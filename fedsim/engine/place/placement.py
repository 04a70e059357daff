"""Which clients share an actor, and on which node: as `engine.clients_per_actor` says, before any actor is there."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from fedsim.core.errors import InputError
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.place.schedule import spread
from fedsim.workload.engine import Engine
from fedsim.workload.resources import Resources

_SMALLEST_SHARE = 1e-4  # of a GPU, that Ray can tell from none
_GPU_PROCESS = 1e9  # bytes of a GPU that an actor takes at least: CUDA itself, and a small network at work


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, as Ray counts what it has."""

    id: str
    cpus: float
    gpus: float
    memory: float
    cuda: bool = True
    """Whether torch can use its GPUs, as far as the driver can tell."""
    gpu_memory: float = math.inf
    """Of its smallest GPU [bytes], if it is known."""

    def places(self, needs: Resources, threads: int, on_gpus: bool) -> int:
        """How many clients with such needs can train at once here; where any can, at least one."""
        cores = max(1, math.floor(self.cpus / (needs.cpus or threads)))
        whole, share = math.floor(self.gpus), needs.gpus  # Ray gives a part of one GPU, or whole ones
        if not on_gpus:
            return cores
        if share is None:
            return min(cores, self.gpu_actors)
        return 0 if not share else whole // math.ceil(share) if share >= 1 else whole * math.floor(1 / share)

    @property
    def gpu_actors(self) -> int:
        """How many actors the memory of its GPUs holds."""
        return math.floor(self.gpus) * max(1, int(min(1 / _SMALLEST_SHARE, self.gpu_memory / _GPU_PROCESS)))


@dataclass(frozen=True)
class ActorPlace:
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
        InputError: there are fewer than that.
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


def placed(engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node]) -> list[ActorPlace]:
    """The actors of a run; where the nodes are left to Ray, in turn over all of them.

    With `clients_per_actor: auto` there is none where no node has the GPUs that its clients ask for.

    Args:
        engine: Says how many clients share an actor.
        clients: The federation's.
        nodes: Of the cluster.
    """
    if engine.backend == "serial":
        return [ActorPlace(0, True, tuple(clients), 0, 0, 0)]
    on_gpus = uses_gpus(engine, nodes)
    limited = engine.nodes is not None or engine.cores is not None  # Ray would choose among all nodes
    groups = _pinned(engine, clients, nodes) if engine.clients_per_actor == "auto" else _cut(engine, clients, nodes)
    turns = [at for at, node in enumerate(nodes) if node.gpus or not on_gpus]
    places = [
        ActorPlace(
            turns[number % len(turns)] if node is None else node,
            node is not None or limited,
            tuple(group),
            *_takes(engine, group, on_gpus),
        )
        for number, (node, group) in enumerate(groups)
    ]
    return _sharing(places, nodes) if on_gpus else places


def uses_gpus(engine: Engine, nodes: Sequence[Node]) -> bool:
    """Whether actors reserve GPUs: what Ray counts is what it gives, whether torch can use it or not."""
    return engine.backend == "ray" and engine.device != "cpu" and any(node.gpus for node in nodes)


def device_of(engine: Engine, nodes: Sequence[Node]) -> str:
    """torch's device for every client of a run: `cuda` on Ray where a node has GPUs that torch can use, else `cpu`."""
    if engine.backend == "serial":
        return "cuda" if engine.device == "cuda" else "cpu"
    return "cuda" if uses_gpus(engine, nodes) and any(node.gpus and node.cuda for node in nodes) else "cpu"


def _takes(engine: Engine, group: Sequence[ClientSpec], on_gpus: bool) -> tuple[float, float, float]:
    cpus = max(client.resources.cpus or engine.threads for client in group)
    gpus = max(client.resources.gpus or 0.0 for client in group) if on_gpus else 0.0
    return cpus, gpus, 1e9 * max(client.resources.memory or 0 for client in group)


def unasked(place: ActorPlace) -> bool:
    """Whether an actor's clients leave open how much of a GPU it gets."""
    return all(client.resources.gpus is None for client in place.clients)


def _sharing(places: Sequence[ActorPlace], nodes: Sequence[Node]) -> list[ActorPlace]:
    """The actors with equal shares of GPUs for those that ask for none; the largest shares that leave nobody out."""
    count, gpus = sum(map(unasked, places)), sum(math.floor(node.gpus) for node in nodes)
    parts, shared = max(1, math.ceil(count / max(gpus, 1))), list(places)
    while count and parts <= 1 / _SMALLEST_SHARE:
        share = math.floor(1 / parts / _SMALLEST_SHARE) * _SMALLEST_SHARE
        shared = [replace(place, gpus=share) if unasked(place) else place for place in places]
        if not unplaced([replace(place, memory=0.0) for place in shared], nodes):
            break
        parts *= 2
    return shared


def _cut(
    engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node]
) -> Iterator[tuple[None, Sequence[ClientSpec]]]:
    """A fixed number of clients per actor, in order, unlike needs apart; more, where GPUs hold fewer actors."""
    size, room = int(engine.clients_per_actor), sum(node.gpu_actors for node in nodes)
    sharing = [client for client in clients if client.resources.gpus is None]
    least = math.ceil(len(sharing) / room) if room and uses_gpus(engine, nodes) else 1
    for needs, group in groupby(clients, lambda client: client.resources):
        alike, most = list(group), max(size, least) if needs.gpus is None else size
        yield from ((None, alike[at : at + most]) for at in range(0, len(alike), most))


def _pinned(
    engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node]
) -> Iterator[tuple[int, Sequence[ClientSpec]]]:
    """As many actors as can train at once, each on its node, with equal shares of the work."""
    alike: dict[Resources, list[ClientSpec]] = defaultdict(list)
    for client in clients:
        alike[client.resources].append(client)
    for needs, members in alike.items():
        counts = [node.places(needs, engine.threads, uses_gpus(engine, nodes)) for node in nodes]
        places = [node for turn in range(max(counts)) for node, count in enumerate(counts) if turn < count]
        if places:
            yield from zip(places, spread(members, min(len(places), len(members))), strict=False)


def unplaced(places: Sequence[ActorPlace], nodes: Sequence[Node]) -> list[ActorPlace]:
    """The actors that Ray would never start, since others have reserved the memory or the GPUs that they need."""
    memory = [node.memory for node in nodes]
    gpus = [[1.0] * math.floor(node.gpus) for node in nodes]
    left = []
    for place in sorted(places, key=lambda place: -place.gpus):
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
