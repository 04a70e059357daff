"""The plan of a run: where clients train, the memory and disk they need, what a round sends, and how long it takes.

Everything follows from sizes before anything runs. Times, and private state that a method adds to what the engine
knows of, come from a calibration if there is one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from fedsim.algorithms.fusing import one_by_one
from fedsim.algorithms.learner import Learner
from fedsim.core.files import as_json
from fedsim.data.samples import ClientData
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.federation import Federation
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.place.machine import Machine
from fedsim.engine.place.node import CUDA_BYTES
from fedsim.engine.place.placement import device_of, placed
from fedsim.engine.plan import saved, sizes
from fedsim.engine.plan.calibration import Calibration, pixels_of_shard
from fedsim.engine.plan.memory import GpuNeeds, gpu_needs, step_bytes
from fedsim.engine.plan.needs import ActorNeeds, NodeNeeds, Working, filled, node_needs
from fedsim.engine.plan.sizes import Traffic
from fedsim.engine.plan.times import Times, checkpoints, expected
from fedsim.engine.plan.virtual import Apart, Virtual, apart
from fedsim.engine.state import client_files as clientfiles
from fedsim.engine.state.segments import next_files
from fedsim.workload.schema import Workload

_SHARD, _VOLUME = 4500, 2600  # bytes of HDF5 around the samples
_DIGEST, _VERSIONS = 100, 1000  # bytes of state.json: a name and its digest, and all that is known of the machine

Spread = tuple[float, float, float]
"""Smallest, median and largest of some numbers."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will need."""

    workload: Workload
    """Of clients that are made by a rule, with as many in a round as a round draws, of those that stand for all. Where
    clients of several rounds are at work at once, its cohort is a buffer.
    """
    clients: tuple[ClientSpec, ...]
    """All of them, or a typical cohort of those that are made by a rule."""
    registered: int
    """Number of all clients."""
    machine: Machine
    device: str
    """torch's name of the device: cpu or cuda."""
    gpu: GpuNeeds | None
    """What an actor needs of a GPU; None on the CPU."""
    actors: tuple[ActorNeeds, ...]
    """The actors; one, without Ray."""
    nodes: tuple[NodeNeeds, ...]
    """The driver's first."""
    private: Spread
    """Private state of a client [bytes]."""
    private_bytes: float
    """Private state of all clients [bytes]."""
    growth_bytes: float
    """By how much a client's private state still grew in its second round [bytes]."""
    traffic: Traffic
    apart: Apart
    checkpoint_bytes: float
    """Size of the last checkpoint [bytes]."""
    written_bytes: float
    """What each checkpoint after the first one writes [bytes]; the rest of it is in earlier files."""
    missing_shards: int
    """Number of phantom shards that the run has to make."""
    cache_bytes: float
    """Size of these shards [bytes]."""
    times: Times | None
    """None without a calibration."""
    notes: tuple[str, ...]
    """How the data were read."""
    virtual: Virtual | None = None
    """The run in simulated time; None without it."""

    @property
    def cohort(self) -> int:
        """Clients in a round."""
        return self.workload.training.drawn(len(self.clients))

    @property
    def drawn(self) -> int:
        """Clients of an actor in a round, at most."""
        share = self.cohort / len(self.clients)
        return max((max(1, round(share * len(a.placement.clients))) for a in self.actors), default=0)

    @property
    def one_by_one(self) -> str:
        """Why training.fuse is without effect on the method; empty if it is not."""
        names = tuple(client.name for client in self.clients[: self.cohort])
        return one_by_one(self.workload.algorithm, names)

    @property
    def slices(self) -> Spread:
        """Training slices of a client."""
        return spread(client.data.samples() for client in self.clients)

    @property
    def uplink_bytes(self) -> float:
        """What a client sends in a round [bytes]; meaningless if the traffic is unknown."""
        return sum(phase.up for phase in self.traffic.phases.values())

    @property
    def downlink_bytes(self) -> float:
        """What a client receives in a round [bytes]; meaningless if the traffic is unknown."""
        return sum(phase.down for phase in self.traffic.phases.values())

    @property
    def checkpoints(self) -> int:
        """Largest number of checkpoints at a time: the last ones, the best one, and the one being written."""
        best = bool(self.workload.metrics.every)
        return min(checkpoints(self.workload), self.workload.engine.keep_last + best + 1)

    @property
    def checkpoints_bytes(self) -> float:
        """Disk space of all checkpoints [bytes]: the best, which may be old, and what differs in the others."""
        wholes = min(self.checkpoints, 1 + bool(self.workload.metrics.every))
        return wholes * self.checkpoint_bytes + (self.checkpoints - wholes) * self.written_bytes


def make_plan(
    workload: Workload,
    federation: Federation,
    learner: Learner,
    timetable: Timetable | None,
    machine: Machine,
    calibration: Calibration | None = None,
) -> Plan:
    """The plan of a workload on a machine.

    Args:
        workload: Settled.
        federation: Its clients.
        learner: Their working network, as initialised.
        timetable: Of the run; None without simulated time.
        machine: Where it would run.
        calibration: Of a client; without it there are no times, and private state is what the engine knows of.

    Raises:
        MethodError: the method's server is wrong about what the calibrated client sent.
    """
    clients, nodes, registered = federation.clients.typical, machine.nodes, len(federation.clients)
    taking_part = min(registered, workload.training.rounds * workload.uploads)
    each = 1.0 if federation.clients.listed else taking_part / len(clients)
    given, overlaps = workload, workload.time is not None and workload.time.overlaps
    if overlaps or not federation.clients.listed:
        round_ = {"participation": 1.0, "cohort": workload.uploads}
        workload = workload.model_copy(update={"training": workload.training.model_copy(update=round_)})
    device = device_of(workload.engine, nodes)
    private = _Private(learner, clients, calibration)
    made = min(registered, taking_part + given.metrics.count(registered, 0))
    each_made = 1.0 if federation.clients.listed else made / len(clients)
    sent = _traffic(workload, learner, tuple(client.name for client in clients), calibration)
    beside = apart(given, timetable, sent.server)
    gpu = _gpu(workload, learner, clients, beside) if device == "cuda" else None
    placements = placed(workload.engine, clients, nodes, gpu.total if gpu else CUDA_BYTES)
    actors = filled(workload.engine, placements, nodes, private.bytes, gpu.total if gpu else 0.0, each)
    fuse = 1 if gpu else workload.training.fuse
    step = (lambda _: 0.0) if gpu else step_bytes(learner, workload.model.smallest, clients)
    working = Working(learner=learner, step_bytes=step, sent=sent, apart=beside, fuse=fuse)
    states = registered / len(clients) * private.saved_bytes(registered)
    others = _driver_files_bytes(learner, clients, sent)
    others += beside.others * sent.server
    others += _VERSIONS + len(as_json(workload.model_dump(mode="json", exclude_none=True)))
    written = states * saved.written(given, registered) + others
    missing = {m.shard: m for c in clients for m in c.data.members if m.maker and not m.shard.exists()}.values()
    fresh = [pixels_of_shard(member) for member in missing]
    return Plan(
        workload=workload,
        clients=clients,
        registered=registered,
        machine=machine,
        device=device,
        gpu=gpu,
        actors=tuple(actors),
        nodes=tuple(node_needs(workload, actors, nodes, working)),
        private=spread(map(private.bytes, clients)),
        private_bytes=each * sum(map(private.bytes, clients)),
        growth_bytes=calibration.growth_bytes if calibration else 0.0,
        traffic=sent,
        apart=beside,
        checkpoint_bytes=states * saved.held(given, registered) + others,
        written_bytes=written,
        missing_shards=round(each_made * len(missing)),
        cache_bytes=each_made * sum(map(_shard_bytes, missing, fresh)),
        times=expected(workload, actors, nodes, calibration, each_made * sum(fresh), written, registered)
        if calibration
        else None,
        notes=tuple(federation.notes),
    )


class _Private:
    """Size of each client's private state, in memory and in a checkpoint."""

    def __init__(self, learner: Learner, clients: Sequence[ClientSpec], calibration: Calibration | None) -> None:
        self._clients = clients
        known = {client.training.optimizer for client in clients}
        states = {optimizer: sizes.private_layout(learner, optimizer) for optimizer in sorted(known)}
        self._bytes = {optimizer: sizes.layout_bytes(state) for optimizer, state in states.items()}
        self._layouts = {o: clientfiles.client_layout(state, learner.flat("local")) for o, state in states.items()}
        if calibration is not None:  # what the method keeps besides, it keeps with every client
            besides = calibration.private_bytes - self._bytes[calibration.client.training.optimizer]
            self._bytes = {optimizer: size + besides for optimizer, size in self._bytes.items()}
            self._layouts = dict.fromkeys(self._layouts, calibration.layout)

    def bytes(self, client: ClientSpec) -> int:
        """Size of a client's private state in memory."""
        return self._bytes[client.training.optimizer]

    def saved_bytes(self, registered: int) -> float:
        """Size of these clients' private state in a checkpoint, given the number of all clients [bytes]."""
        names = [client.name for client in self._clients]
        files = next_files(1, names, {}, registered)
        together = len(self._clients) / len(set(files.values()))
        headers = {
            optimizer: sizes.header_bytes(layout, int(self._bytes[optimizer] * together))
            for optimizer, layout in self._layouts.items()
        }
        total = (8.0 + _DIGEST) * len(set(files.values()))
        for client in self._clients:
            total += _DIGEST + 2 * len(client.name)
            prefix = len(client.name) + 1 if files[client.name] != clientfiles.own_file(client.name) else 0
            optimizer = client.training.optimizer
            total += self.bytes(client) + headers[optimizer] + prefix * len(self._layouts[optimizer])
        return total


def _gpu(workload: Workload, learner: Learner, clients: Sequence[ClientSpec], beside: Apart) -> GpuNeeds:
    """What an actor needs of a GPU, where clients of a call may read several states and enter several sums."""
    side, held = workload.model.smallest, {"states": beside.read, "sums": beside.sums}
    return gpu_needs(workload.algorithm, learner, clients, side, **held)


def _shard_bytes(member: ClientData, pixels: float) -> float:
    """Size of a shard that does not exist yet [bytes]."""
    volumes = len({piece.volume for piece in member.pieces})
    return (16 * member.coils or 8) * pixels + _SHARD + _VOLUME * volumes


def _driver_files_bytes(learner: Learner, clients: Sequence[ClientSpec], sent: Traffic) -> float:
    """What the driver writes into a checkpoint [bytes]: shared parameters, the server's vectors, and state.json."""
    own = sent.server - learner.shared.nbytes
    names = sum(len(client.name) + 8 for client in clients)
    return sizes.shared_file_bytes(learner) + own + names + 150


def _traffic(workload: Workload, learner: Learner, names: tuple[str, ...], calibration: Calibration | None) -> Traffic:
    """What a round sends: derived from a calibrated client's uploads or, where the method allows it, from zeros.

    Raises:
        MethodError: the method failed on what the calibrated client sent.
    """
    start, method = learner.fresh_server(), workload.algorithm
    cohort = workload.training.drawn(len(names))
    if workload.time is not None:
        cohort = workload.time.per_server(cohort)
    if calibration is not None:
        return sizes.traffic(method, start, calibration.sent, names, cohort)
    return sizes.traffic_of_zeros(method, start, names, cohort)


def spread(values: Iterable[float]) -> Spread:
    """Smallest, median and largest of some numbers."""
    ordered = sorted(values)
    return ordered[0], median(ordered), ordered[-1]
