"""How long a run will take, from the times of one client."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from fedsim.algorithms import hooks
from fedsim.data.split import PARTS
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.place.node import Node
from fedsim.engine.place.placement import Placement
from fedsim.engine.plan.calibration import Calibration, fused_rows, pixels
from fedsim.engine.plan.needs import ActorNeeds
from fedsim.workload.schema import Workload

_START = 5.0  # s until Ray and the driver have started
_ACTOR = 5.0  # core seconds until an actor has started and torch in it has warmed up
_DISK = 0.5e9  # bytes per second, of checkpoints


@dataclass(frozen=True, kw_only=True)
class Times:
    """Expected times [s]."""

    client: tuple[float, float, float]
    """A client in a round: shortest, median, longest."""
    round: float
    """Training in a round."""
    validation: float
    """Validating the clients that `metrics.clients` names once."""
    checkpoint: float
    """Writing a checkpoint, on a disk of ordinary speed."""
    start: float
    """Starting Ray and all actors, once data are imported."""
    shards: float
    """Making the missing phantom shards, in the first round."""
    total: float
    """All rounds and the test at the end."""
    others: float = 0.0
    """Number of cores that other programs used on this machine while a client was timed; not a time."""
    beside_others: float = 0.0
    """`total` while those programs keep running."""


def expected(
    workload: Workload,
    actors: Sequence[ActorNeeds],
    nodes: Sequence[Node],
    calibration: Calibration,
    missing: float,
    checkpoint_bytes: float,
    registered: int,
) -> Times:
    """How long a run will take if nothing else runs on its machines.

    Args:
        workload: Settled.
        actors: Its actors.
        nodes: Their nodes.
        calibration: Of a client.
        missing: Number of pixels of the missing phantom shards.
        checkpoint_bytes: What a checkpoint writes [bytes].
        registered: Number of all clients, of which the actors' may stand for more.
    """
    placements = [actor.placement for actor in actors]
    wall = _Wall(placements, nodes)
    clients = [client for placement in placements for client in placement.clients]
    unkept = {name: size for actor in actors for name, size in actor.unkept.items()}
    seconds = {
        phase: {client.name: _seconds(client, calibration, phase, unkept.get(client.name, 0.0)) for client in clients}
        for phase in calibration.pace
    }
    names = [client.name for client in clients]
    cohort = _cohort(workload, len(names))
    phases = hooks.phases(workload.algorithm, tuple(names[at] for at in cohort), 1, workload.seed)
    scored = [names[at] for at in workload.metrics.scored(len(names), cohort, workload.seed)]
    looking = {part: {c.name: pixels(c, part) * calibration.validation_pace for c in clients} for part in PARTS}
    each = sorted(sum(of[client.name] for of in seconds.values()) for client in clients)
    rows = fused_rows(workload, names)
    training = sum(wall.seconds(phase.clients, seconds[phase.name], rows) for phase in phases)
    more = workload.metrics.count(registered, len(cohort)) / len(scored)  # than those that stand for all
    validation, testing = (more * wall.seconds(scored, looking[part]) for part in ("val", "test"))
    start = _START + _ACTOR * len(placements) / sum(node.cpus for node in nodes)
    start = start if workload.engine.backend == "ray" else 0.0
    shards = missing * calibration.shard_pace / wall.slots
    rounds, every = workload.training.rounds, workload.metrics.every
    writing = checkpoint_bytes / _DISK
    total = start + shards + rounds * training + testing + checkpoints(workload) * writing
    total += (rounds // every) * validation if every else 0.0
    cores, others = sum(node.cpus for node in nodes), calibration.others
    shared = total * max(1.0, (min(wall.slots, cores) + others) / cores)
    return Times(
        client=(each[0], median(each), each[-1]), round=training, validation=validation, checkpoint=writing,
        start=start, shards=shards, total=total, others=others, beside_others=shared,
    )  # fmt: skip


def checkpoints(workload: Workload) -> int:
    """How many checkpoints a run writes."""
    rounds, every = workload.training.rounds, workload.engine.checkpoint_every
    return rounds // every + bool(rounds % every) if every else 1


def _cohort(workload: Workload, clients: int) -> list[int]:
    """The places of a typical cohort: clients evenly spaced over the federation."""
    size = workload.training.drawn(clients)
    return [index * clients // size for index in range(size)]


def _seconds(client: ClientSpec, calibration: Calibration, phase: str, unkept: float) -> float:
    """Time of a client in a phase [s]."""
    reading = unkept * client.training.local_epochs * calibration.reading_pace
    return calibration.fixed[phase] + calibration.pace[phase] * client.work() + reading


class _Wall:
    """Wall-clock time, where an actor trains its clients in turn, and a node's cores and GPUs limit its actors."""

    def __init__(self, placements: Sequence[Placement], nodes: Sequence[Node]) -> None:
        self._placements = placements
        self._actor = {client.name: at for at, placement in enumerate(placements) for client in placement.clients}
        self._at_once = [_at_once(placement, nodes[placement.node]) for placement in placements]
        there, limits = Counter(p.node for p in placements), zip(placements, self._at_once, strict=True)
        self.slots = sum({p.node: min(most, there[p.node]) for p, most in limits}.values())

    def seconds(self, names: Iterable[str], seconds: Mapping[str, float], rows: int = 1) -> float:
        """Time until the last of some clients is done [s].

        Args:
            names: The clients.
            seconds: Time of each [s], that of its row where several train as one network.
            rows: Clients that train as one network; a row without a client takes as long as one with.
        """
        mine: dict[int, list[float]] = defaultdict(list)
        for name in names:
            mine[self._actor[name]].append(seconds[name])
        loads = {at: fmean(times) * rows * math.ceil(len(times) / rows) for at, times in mine.items()}
        nodes: dict[int, float] = defaultdict(float)
        for at, load in loads.items():
            nodes[self._placements[at].node] += load / self._at_once[at]
        return max((*loads.values(), *nodes.values()), default=0.0)


def _at_once(placement: Placement, node: Node) -> int:
    """How many actors like this one its node can work for at once: processes on one GPU take turns."""
    cores = math.floor(node.cpus / placement.cpus) if placement.cpus else 1
    gpus = math.floor(node.gpus) if placement.gpus and node.cuda else cores
    return max(1, min(cores, gpus))
