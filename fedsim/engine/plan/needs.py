"""What the actors of a run take of their nodes: memory, and disk for private state that is not kept in memory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedsim.algorithms.learner import Learner
from fedsim.data.samples import slice_bytes
from fedsim.engine.backend import limits_of
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Limits
from fedsim.engine.place.machine import NodeCapacity
from fedsim.engine.place.placement import ActorPlace, Node
from fedsim.engine.plan.sizes import Traffic, process_bytes
from fedsim.workload.engine import Engine
from fedsim.workload.schema import Workload

_USABLE = 0.95  # of a node's memory
_DRIVER = 0.5e9  # bytes of its process
_RAY = 0.5e9  # bytes of Ray's own processes on a node


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """What a run takes of a node; sizes in bytes."""

    room: NodeCapacity
    actors: int
    """Number of actors."""
    clients: int
    """Number of clients."""
    slots: int
    """Number of clients that train there at once."""
    process_bytes: float
    """Memory of the actors themselves."""
    state_bytes: float
    """Memory for private state."""
    slice_bytes: float
    """Memory for training slices."""
    other_bytes: float
    """Memory for the driver (on the first node), for Ray and its object store."""
    scratch_bytes: float
    """Disk for private state that is not kept in memory."""

    @property
    def memory_bytes(self) -> float:
        """All its memory."""
        return self.process_bytes + self.state_bytes + self.slice_bytes + self.other_bytes


def usable_bytes(node: NodePlan) -> float:
    """Memory that a run may take of a node; beyond, Ray ends actors."""
    return _USABLE * node.room.memory


@dataclass
class ActorNeeds:
    """An actor filled with what its clients keep, first come, first kept."""

    place: ActorPlace
    state_bytes: float = 0.0
    scratch_bytes: float = 0.0
    slice_bytes: float = 0.0
    unkept: dict[str, float] = field(default_factory=dict)
    """Pixels of training slices that clients read anew in every epoch."""
    open_shards: int = 0
    """Most shards that a client reads at once."""


def filled(
    engine: Engine,
    places: Sequence[ActorPlace],
    rooms: Sequence[NodeCapacity],
    private_bytes: Callable[[ClientSpec], float],
) -> list[ActorNeeds]:
    """The actors with their clients' private state and slices, as far as their shares of their nodes' memory go."""
    limits = _limits(engine, rooms, len(places))
    homes = [ActorNeeds(place) for place in places]
    for home in homes:
        for client in home.place.clients:
            _keep_state(home, private_bytes(client), limits.state_bytes)
            _keep_slices(home, client, limits.slice_bytes)
    return homes


def _limits(engine: Engine, rooms: Sequence[NodeCapacity], actors: int) -> Limits:
    """What an actor may keep: an even share of its node's memory, or all of what this process may have."""
    if engine.backend == "serial":
        return limits_of(engine, rooms[0].memory, 1)
    return limits_of(engine, min(room.node.memory for room in rooms), math.ceil(max(actors, 1) / len(rooms)))


def _keep_state(home: ActorNeeds, size: float, budget: float) -> None:
    if home.state_bytes + size <= budget:
        home.state_bytes += size
    else:
        home.scratch_bytes += size


def _keep_slices(home: ActorNeeds, client: ClientSpec, budget: float) -> None:
    opened = 0
    for member in client.data.members:
        samples = member.samples()
        if home.slice_bytes + samples * slice_bytes(member) <= budget:
            home.slice_bytes += samples * slice_bytes(member)
        else:
            opened += 1
            pixels = samples * member.matrix[0] * member.matrix[1]
            home.unkept[client.name] = home.unkept.get(client.name, 0.0) + pixels
    home.open_shards = max(home.open_shards, opened)


@dataclass(frozen=True)
class Working:
    """What actors and the driver work with, whatever their clients keep."""

    learner: Learner
    pixel_bytes: float
    """What a training step keeps for each pixel of its batch."""
    sent: Traffic

    def process_bytes(self, place: ActorPlace) -> float:
        """Memory of an actor without its clients' private state and slices."""
        largest = max((_batch_pixels(client) for client in place.clients), default=0.0)
        return process_bytes(self.learner, self.pixel_bytes * largest)

    def node_bytes(self, slots: int) -> float:
        """Memory of Ray on a node: its processes and its part of the object store."""
        phases = self.sent.phases.values()
        return _RAY + max((phase.broadcast + slots * phase.summed for phase in phases), default=0.0)

    def driver_bytes(self, cohort: int) -> float:
        """Memory of the driver and of what is collected for it: the server before and after, sums, single vectors."""
        phases = self.sent.phases.values()
        return 2 * self.sent.peak + max((3 * p.summed + cohort * p.collected for p in phases), default=0.0)


def node_plans(
    workload: Workload, homes: Sequence[ActorNeeds], rooms: Sequence[NodeCapacity], working: Working
) -> list[NodePlan]:
    """What a run takes of every node; the driver is on the first."""
    clients = sum(len(home.place.clients) for home in homes)
    driver = working.driver_bytes(workload.training.cohort(clients)) if clients else 0.0
    serial = workload.engine.backend == "serial"
    plans = []
    for at, room in enumerate(rooms):
        here = [home for home in homes if home.place.node == at]
        slots = _slots(room.node, here)
        others = 0.0 if serial else working.node_bytes(slots) + (_DRIVER if at == 0 else 0.0)
        plans.append(NodePlan(
            room=room,
            actors=len(here),
            clients=sum(len(home.place.clients) for home in here),
            slots=slots,
            process_bytes=sum(working.process_bytes(home.place) for home in here),
            state_bytes=sum(home.state_bytes for home in here),
            slice_bytes=sum(home.slice_bytes for home in here),
            other_bytes=others + (driver if at == 0 else 0.0),
            scratch_bytes=sum(home.scratch_bytes for home in here),
        ))  # fmt: skip
    return plans


def _slots(node: Node, homes: Sequence[ActorNeeds]) -> int:
    at_once = [max(1, math.floor(node.cpus / home.place.cpus)) if home.place.cpus else 1 for home in homes]
    return min([len(homes), *at_once])


def _batch_pixels(client: ClientSpec) -> float:
    size = min(client.training.batch_size, max(client.data.samples(), 1))
    return float(size * max(member.matrix[0] * member.matrix[1] for member in client.data.members))
