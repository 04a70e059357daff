"""What the actors of a run need of their nodes: memory, and disk for private state that is not kept in memory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fedsim.algorithms.learner import Learner
from fedsim.data.samples import training_bytes
from fedsim.engine.backend import limits_of
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Limits
from fedsim.engine.place.node import Node
from fedsim.engine.place.placement import Placement
from fedsim.engine.plan.memory import LIBRARIES, process_bytes
from fedsim.engine.plan.sizes import Traffic
from fedsim.engine.plan.virtual import Apart
from fedsim.workload.engine import Engine
from fedsim.workload.schema import Workload

_USABLE = 0.95  # of a node's memory
_DRIVER = 0.5e9  # bytes of its process
_RAY = 0.5e9  # bytes of Ray's own processes on a node


@dataclass(frozen=True, kw_only=True)
class NodeNeeds:
    """What a run needs of a node; sizes in bytes."""

    node: Node
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
        """All memory that the run needs there [bytes]."""
        return self.process_bytes + self.state_bytes + self.slice_bytes + self.other_bytes


def usable_bytes(node: Node) -> float:
    """Memory of a node that a run may take [bytes]; beyond that, Ray kills actors."""
    return _USABLE * node.total_memory


@dataclass(kw_only=True)
class ActorNeeds:
    """What an actor needs for its clients; memory goes to the first of them until its share is used up."""

    placement: Placement
    state_bytes: float = 0.0
    """Memory for private state [bytes]."""
    scratch_bytes: float = 0.0
    """Disk for private state that is not kept in memory [bytes]."""
    slice_bytes: float = 0.0
    """Memory for training slices [bytes]."""
    gpu_state_bytes: float = 0.0
    """Memory of a GPU for private state [bytes]."""
    on_gpu: bool = False
    """Whether training slices lie on a GPU."""
    unkept: dict[str, float] = field(default_factory=dict)
    """By client: pixels of training slices that it reads again in every epoch."""
    open_shards: int = 0
    """Largest number of shards that a client reads at once."""


def filled(
    engine: Engine,
    placements: Sequence[Placement],
    nodes: Sequence[Node],
    private_bytes: Callable[[ClientSpec], float],
    work_bytes: float = 0.0,
    each: float = 1.0,
) -> list[ActorNeeds]:
    """What each actor needs for its clients' private state and slices, given its share of its node's memory.

    Args:
        engine: Says how much of it they may take.
        placements: Of the actors.
        nodes: Of the cluster.
        private_bytes: A client's private state [bytes].
        work_bytes: Memory of a GPU that an actor takes to train [bytes]; 0: it trains on the CPU.
        each: Number of clients over all rounds that one of the placements stands for.
    """
    limits = _limits(engine, nodes, placements, work_bytes)
    actors = [ActorNeeds(placement=placement, on_gpu=work_bytes > 0) for placement in placements]
    for actor in actors:
        own, usable = replace(limits, device_bytes=0.0), nodes[actor.placement.node].gpu_usable
        if actor.on_gpu:
            own = replace(limits, gpu_share=actor.placement.gpus or 1.0).on_gpu(usable)
        for client in actor.placement.clients:
            _keep_state(actor, each * private_bytes(client), own)
            _keep_slices(actor, client, own.slice_bytes, each)
    return actors


def _limits(engine: Engine, nodes: Sequence[Node], placements: Sequence[Placement], work_bytes: float) -> Limits:
    """Limits of an actor: an even share of its node's memory, or all that this process may use."""
    if engine.backend == "serial":
        return limits_of(engine, nodes[0].total_memory, 1, work_bytes)
    memory = min(node.actor_memory for node in nodes)
    there = max(1, len({placement.node for placement in placements}))
    return limits_of(engine, memory, math.ceil(max(len(placements), 1) / there), work_bytes)


def _keep_state(actor: ActorNeeds, size: float, limits: Limits) -> None:
    if actor.gpu_state_bytes + size <= (limits.device_bytes or 0.0):
        actor.gpu_state_bytes += size
    elif actor.state_bytes + size <= limits.state_bytes:
        actor.state_bytes += size
    else:
        actor.scratch_bytes += size


def _keep_slices(actor: ActorNeeds, client: ClientSpec, budget: float, each: float) -> None:
    opened = 0
    for member in client.data.members:
        size = each * training_bytes(member)
        if actor.slice_bytes + size <= budget:
            actor.slice_bytes += size
        else:
            opened += 1
            actor.unkept[client.name] = actor.unkept.get(client.name, 0.0) + member.pixels()
    actor.open_shards = max(actor.open_shards, opened)


@dataclass(frozen=True, kw_only=True)
class Working:
    """Memory that actors and the driver need to work, regardless of what their clients keep."""

    learner: Learner
    step_bytes: Callable[[ClientSpec], float]
    """What autograd keeps in a client's largest step [bytes]."""
    sent: Traffic
    apart: Apart
    fuse: int = 1
    """Clients that train as one network."""

    def process_bytes(self, placement: Placement) -> float:
        """Memory of an actor without its clients' private state and slices [bytes]."""
        largest = max(map(self.step_bytes, placement.clients), default=0.0)
        sums = min(self.apart.sums, max(1, len(placement.clients)))
        more = (sums - 1) * max((phase.summed for phase in self.sent.phases.values()), default=0.0)
        return process_bytes(self.learner, largest, self.fuse) + more

    def node_bytes(self, slots: int) -> float:
        """Memory of Ray on a node: its processes and its part of the object store [bytes]."""
        sums = max(slots, min(slots * self.apart.sums, self.apart.asked))
        phases = self.sent.phases.values()
        return _RAY + max((self.apart.read * phase.broadcast + sums * phase.summed for phase in phases), default=0.0)

    def driver_bytes(self) -> float:
        """Memory of the driver and what it collects [bytes]: server state before and after, sums, single vectors.

        States of the server beside it are in memory twice while a checkpoint is written.
        """
        sums, asked, phases = 2 + self.apart.sums, self.apart.asked, self.sent.phases.values()
        collecting = max((sums * phase.summed + asked * phase.collected for phase in phases), default=0.0)
        return 2 * self.sent.peak + 2 * self.apart.others * self.sent.server + collecting


def node_needs(
    workload: Workload, actors: Sequence[ActorNeeds], nodes: Sequence[Node], working: Working
) -> list[NodeNeeds]:
    """What a run needs of each node; the driver is on the first."""
    driver = working.driver_bytes() if any(actor.placement.clients for actor in actors) else 0.0
    serial = workload.engine.backend == "serial"
    needs = []
    for at, node in enumerate(nodes):
        here = [actor for actor in actors if actor.placement.node == at]
        slots = _slots(node, here)
        driven = at == 0 and not serial  # the driver is a process of its own there
        libraries = LIBRARIES * len(here) / (len(here) + driven) if here else 0.0
        others = 0.0 if serial else working.node_bytes(slots) + (_DRIVER if at == 0 else 0.0)
        needs.append(NodeNeeds(
            node=node,
            actors=len(here),
            clients=sum(len(actor.placement.clients) for actor in here),
            slots=slots,
            process_bytes=sum(working.process_bytes(actor.placement) for actor in here) + libraries,
            state_bytes=sum(actor.state_bytes for actor in here),
            slice_bytes=sum(actor.slice_bytes for actor in here if not actor.on_gpu),
            other_bytes=others + (driver if at == 0 else 0.0),
            scratch_bytes=sum(actor.scratch_bytes for actor in here),
        ))  # fmt: skip
    return needs


def _slots(node: Node, actors: Sequence[ActorNeeds]) -> int:
    cores = [actor.placement.cpus for actor in actors]
    return min([len(actors), *(max(1, math.floor(node.cpus / cpus)) if cpus else 1 for cpus in cores)])
