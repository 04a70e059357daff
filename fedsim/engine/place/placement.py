"""Which clients share an actor, and on which node: decided by `engine.clients_per_actor` before any actor exists."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from fedsim.core.errors import InputError
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.place.labels import kinds_text, labels_text
from fedsim.engine.place.node import CUDA_BYTES, SMALLEST_SHARE, Node
from fedsim.engine.place.schedule import spread
from fedsim.workload.engine import Engine
from fedsim.workload.resources import Resources

_HALF = 0.5  # of a GPU


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
    needs: Resources = field(default_factory=Resources)
    """What each of its clients asks for."""


def granted(
    engine: Engine, nodes: Sequence[Node], kinds: Collection[Resources] = (), *, early: bool = False
) -> list[Node]:
    """The nodes and cores that `engine.nodes` and `engine.cores` allow: the first nodes, cores taken from each in turn.

    Args:
        engine: The limits.
        nodes: Of the cluster.
        kinds: What clients need; under a limit, nodes that carry the labels of some come first.
        early: Whether nodes that a run would wait for may be missing.

    Raises:
        InputError: there are fewer.
    """
    if nodes_missing(engine, nodes) and not (early and engine.nodes_timeout_s is not None):
        remedy = "lower it" + (", or set engine.nodes_timeout_s to wait for more" if not engine.nodes_timeout_s else "")
        raise InputError(f"engine.nodes: {engine.nodes}, and the Ray cluster has {len(nodes)}; {remedy}")
    if engine.nodes is None and engine.cores is None:
        return list(nodes)
    labelled = {node.id for node in usable(nodes, kinds)}
    nodes = sorted(nodes, key=lambda node: node.id not in labelled)[: engine.nodes]
    if engine.cores is None:
        return nodes
    turns = [at for turn in range(engine.cores) for at, node in enumerate(nodes) if turn < math.floor(node.cpus)]
    if engine.cores > len(turns):
        raise InputError(f"engine.cores: {engine.cores}, and there are {len(turns)}; lower it")
    shares = Counter(turns[: engine.cores])
    return [replace(nodes[at], cpus=shares[at]) for at in sorted(shares)]


def nodes_missing(engine: Engine, nodes: Sequence[Node]) -> int:
    """How many nodes `engine.nodes` asks for beyond those of the cluster."""
    return max(0, (engine.nodes or 0) - len(nodes))


def usable(nodes: Iterable[Node], kinds: Collection[Resources]) -> list[Node]:
    """The nodes that carry the labels of clients of some kind; without any kinds, all nodes."""
    return [node for node in nodes if not kinds or any(map(node.carries, kinds))]


def unlabelled(clients: Iterable[ClientSpec], nodes: Sequence[Node]) -> str | None:
    """Why a run is refused, if no node carries the labels that some client asks for."""
    for client in clients:
        if not usable(nodes, [client.resources]):
            asked = f"site {client.site}: resources.labels: {labels_text(client.resources.labels)}"
            there = f"Ray has {kinds_text(node.labels for node in nodes)}"
            return f"{asked}, and {there}; ray start --labels gives a node some, and engine.backend serial needs none"
    return None


def placed(
    engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node], gpu_bytes: float = CUDA_BYTES
) -> list[Placement]:
    """The placements of a run's actors; where Ray chooses the nodes, they are counted over all nodes in turn.

    Clients get no placement if no node has the labels or, with `clients_per_actor: auto`, the GPUs that they ask for.

    Args:
        engine: Says how many clients share an actor.
        clients: The federation's.
        nodes: Of the cluster.
        gpu_bytes: Memory of a GPU that an actor takes [bytes].
    """
    if engine.backend == "serial":
        return [Placement(node=0, pinned=True, clients=tuple(clients))]
    on_gpus = uses_gpus(engine, nodes)
    limited = engine.nodes is not None or engine.cores is not None  # Ray would choose among all nodes
    needed = gpu_bytes if on_gpus else None
    groups = (_pinned if engine.clients_per_actor == "auto" else _cut)(engine, clients, nodes, needed)
    turns = _Turns(nodes, on_gpus)
    placements = [
        Placement(
            node=at,
            pinned=node is not None or limited,
            clients=tuple(group),
            needs=group[0].resources,
            gpus=_share(group[0].resources, nodes if node is None else nodes[node : node + 1], needed),
            **_reserves(engine, group),
        )
        for node, group in groups
        if (at := turns.next(group[0].resources) if node is None else node) is not None
    ]
    return _sharing(placements, nodes) if on_gpus else placements


class _Turns:
    """The nodes that actors get in turn, those that may run on the same nodes together."""

    def __init__(self, nodes: Sequence[Node], on_gpus: bool) -> None:
        self._nodes, self._on_gpus = nodes, on_gpus
        self._given = Counter[tuple[int, ...]]()

    def next(self, needs: Resources) -> int | None:
        """Index of the next node for clients with such needs; None if no node is for them."""
        nodes = enumerate(self._nodes)
        ours = tuple(at for at, node in nodes if node.carries(needs) and (node.gpus or not self._on_gpus))
        self._given[ours] += 1
        return ours[(self._given[ours] - 1) % len(ours)] if ours else None


def uses_gpus(engine: Engine, nodes: Sequence[Node]) -> bool:
    """Whether actors reserve GPUs; Ray assigns the GPUs that it counts, whether torch can use them or not."""
    return engine.backend == "ray" and engine.device != "cpu" and any(node.gpus for node in nodes)


def device_of(engine: Engine, nodes: Sequence[Node]) -> str:
    """torch's device for every client of a run: `cuda` on Ray where a node has GPUs that torch can use, else `cpu`."""
    if engine.backend == "serial":
        return "cuda" if engine.device == "cuda" else "cpu"
    return "cuda" if uses_gpus(engine, nodes) and any(node.gpus and node.cuda for node in nodes) else "cpu"


def _reserves(engine: Engine, group: Sequence[ClientSpec]) -> dict[str, float]:
    """What Ray reserves for an actor, GPUs aside."""
    cpus = max(client.resources.cpus or engine.threads for client in group)
    return {"cpus": cpus, "memory": 1e9 * max(client.resources.memory or 0 for client in group)}


def unasked(placement: Placement) -> bool:
    """Whether an actor's clients do not say how much of a GPU they need."""
    return placement.needs.gpus is None


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
    engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node], gpu_bytes: float | None
) -> Iterator[tuple[None, Sequence[ClientSpec]]]:
    """A fixed number of clients per actor, in order, grouped by needs; more where fewer actors can train on GPUs."""
    size, alike = int(engine.clients_per_actor), Counter(client.resources for client in clients)
    for needs, group in groupby(clients, lambda client: client.resources):
        members, most = list(group), size
        if gpu_bytes is not None:
            share = _share(needs, nodes, gpu_bytes)
            held = sum(node.slots(needs, engine.threads, share) for node in nodes if node.carries(needs))
            most = max(size, math.ceil(alike[needs] / max(held // len(_rivals(needs, alike)), 1)))
        yield from ((None, members[at : at + most]) for at in range(0, len(members), most))


def _rivals(needs: Resources, kinds: Iterable[Resources]) -> list[Resources]:
    """The kinds of clients that divide the GPUs with one: those that ask for no share; one that does is alone."""
    return [other for other in kinds if other.gpus is None] if needs.gpus is None else [needs]


def _share(needs: Resources, nodes: Sequence[Node], gpu_bytes: float | None) -> float:
    """The least share of a GPU with which an actor can train on any of some nodes; 0 if it needs none."""
    fitting = (node for node in nodes if node.gpus and node.carries(needs))
    return max((node.gpu_share(needs, gpu_bytes) for node in fitting if gpu_bytes), default=0.0)


def _pinned(
    engine: Engine, clients: Sequence[ClientSpec], nodes: Sequence[Node], gpu_bytes: float | None
) -> Iterator[tuple[int, Sequence[ClientSpec]]]:
    """As many actors as can train at once, each pinned to a node, with equal shares of the work.

    Processes on one GPU take turns, and each takes memory: of actors that ask for no share there are at most two a GPU,
    so that one loads and sends while the other trains. More than are needed to fill the rows of fused networks only
    compute empty rows.
    """
    alike: dict[Resources, list[ClientSpec]] = defaultdict(list)
    for client in clients:
        alike[client.resources].append(client)
    for needs, members in alike.items():
        least = _HALF if needs.gpus is None else 0.0
        shares = [None if gpu_bytes is None else max(least, node.gpu_share(needs, gpu_bytes)) for node in nodes]
        counts = [
            node.slots(needs, engine.threads, share) if node.carries(needs) else 0
            for node, share in zip(nodes, shares, strict=True)
        ]
        slots = [node for turn in range(max(counts)) for node, count in enumerate(counts) if turn < count]
        if gpu_bytes is not None and slots:
            rivals = _rivals(needs, alike)
            slots = slots[rivals.index(needs) % len(slots) :: len(rivals)]
        if slots:
            yield from zip(slots, spread(members, min(len(slots), _worth(members))), strict=False)


def _worth(clients: Sequence[ClientSpec]) -> int:
    """The most actors that have work for all rows of their networks: one for every training.fuse clients drawn."""
    training = clients[0].training
    return math.ceil(training.drawn(len(clients)) / training.fuse) if training.fuse > 1 else len(clients)


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
            if nodes[at].carries(placement.needs)
            and placement.memory <= memory[at]
            and _free_gpus(gpus[at], placement.gpus) is not None
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
