"""Whether a plan fits its machine: each refusal names the key to change and, if there is one, a value that fits."""

import math
from dataclasses import replace
from pathlib import Path

import torch

from fedsim.algorithms.learner import Learner
from fedsim.core.errors import InputError, RefusedError
from fedsim.core.text import bytes_text
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.federation import Federation, assemble
from fedsim.engine.host.training import make_learner
from fedsim.engine.place.gpus import hidden_text
from fedsim.engine.place.labels import labels_text
from fedsim.engine.place.machine import Machine, machine_of
from fedsim.engine.place.node import CUDA_BYTES, SMALLEST_SHARE
from fedsim.engine.place.placement import unasked, unlabelled, unplaced, usable, uses_gpus
from fedsim.engine.plan import disks
from fedsim.engine.plan.advice import warnings
from fedsim.engine.plan.calibration import calibrate
from fedsim.engine.plan.needs import usable_bytes
from fedsim.engine.plan.plan import Plan, make_plan
from fedsim.engine.plan.virtual import check_ends, foresee
from fedsim.engine.ray.cluster import connect, disconnect
from fedsim.engine.record.run_directory import setup_of
from fedsim.engine.rounds import check_phases
from fedsim.workload.schema import Workload

_GB = 1e9


def check_fits(
    workload: Workload,
    federation: Federation,
    learner: Learner,
    timetable: Timetable | None,
    out: Path,
    machine: Machine | None = None,
) -> list[str]:
    """Refuse a run that cannot finish, or does not fit its machine by sizes alone; returns warnings about others.

    Args:
        workload: Settled.
        federation: Its clients.
        learner: Their working network, as initialised.
        timetable: Of the run; None without simulated time.
        out: The run directory, which need not exist.
        machine: Where it would run; default the Ray cluster that this process is connected to, or this machine.

    Raises:
        InputError: something does not fit, or simulated time does not let the run finish; names the key to change.
    """
    check_ends(timetable, workload.training.rounds)
    plan = make_plan(workload, federation, learner, timetable, machine or machine_of(workload, out))
    refuse(plan)
    return warnings(plan)


def check_time(workload: Workload, clients: Clients) -> None:
    """Refuse a run that simulated time does not let begin or finish, wherever it would run.

    Args:
        workload: Settled.
        clients: The federation's.

    Raises:
        InputError: its method does not suit time.mode, its trace cannot be used, or no client finishes a turn any more.
    """
    if workload.time is not None:
        check_phases(workload, clients)
        timetable = Timetable.of(workload, clients, make_learner(setup_of(workload)))
        check_ends(timetable, workload.training.rounds)


def plan_run(workload: Workload, out: Path, machine: Machine | None = None) -> Plan:
    """The plan of a run, with times from a client that is timed in this process.

    A run whose actors cannot be placed or do not fit into memory has no times; `refuse` says why.

    Args:
        workload: What would run.
        out: The run directory, which need not exist.
        machine: Where it would run; default this machine.

    Raises:
        InputError: the workload or its data are wrong.
    """
    workload = workload.settled()
    federation, learner = assemble(workload), make_learner(setup_of(workload))
    timetable, virtual = Timetable.of(workload, federation.clients, learner), None
    if timetable:
        check_phases(workload, federation.clients)
        virtual = foresee(timetable, workload.training.rounds)
    parts = federation, learner, timetable, machine or machine_of(workload, out)
    plan = make_plan(workload, *parts)
    if not any(check(plan) for check in _BEFORE):
        device = "cuda" if plan.device == "cuda" and torch.cuda.is_available() else "cpu"
        plan = make_plan(workload, *parts, calibrate(plan.workload, plan.clients, device))
    return replace(plan, virtual=virtual)


def refuse(plan: Plan) -> None:
    """Refuse a run that does not fit.

    Raises:
        RefusedError: it is larger than its machine; names the key to change.
        InputError: it lacks what may be there another time: nodes, or space on a disk; likewise.
    """
    for check in (*_BEFORE, *disks.CHECKS):
        problem = check(plan)
        if problem is not None:
            raise (RefusedError if check in _SIZES else InputError)(problem)


def machine_at(workload: Workload, out: Path, address: str) -> Machine:
    """The resources of a Ray cluster.

    Raises:
        InputError: there is no such cluster, or the workload does not run on Ray.
    """
    if workload.engine.backend != "ray":
        raise InputError(f"--address {address}: needs engine.backend=ray")
    _, owned = connect(address)
    try:
        return machine_of(workload, out, look=True)
    finally:
        if owned:
            disconnect()


# Resources for actors


def _labels(plan: Plan) -> str | None:
    """Labels that no node carries, or none that has a GPU where clients train on GPUs."""
    engine, nodes = plan.workload.engine, plan.machine.nodes
    if engine.backend != "ray":
        return None
    for client in plan.clients if uses_gpus(engine, nodes) else ():
        there = usable(nodes, [client.resources])
        if there and not any(node.gpus for node in there):
            what = f"site {client.site}: resources.labels: {labels_text(client.resources.labels)}"
            return f"{what}: nodes with them have no GPU, and clients train on GPUs; set engine.device to cpu"
    return unlabelled(plan.clients, nodes)


def _gpus(plan: Plan) -> str | None:
    """GPUs that no node has, or that torch cannot use."""
    engine, most = plan.workload.engine, max(node.gpus for node in plan.machine.nodes)
    if engine.device == "cuda" and not (most and any(node.cuda for node in plan.machine.nodes)):
        there = "torch cannot use those that Ray counts" if most else f"there is none{hidden_text()}"
        return f"engine.device: cuda needs a GPU, and {there}; set it to auto or cpu"
    for client in plan.clients if engine.device != "cpu" else ():
        asked = client.resources.gpus
        if asked and not most:
            remedy = "leave it out, or set engine.device to cpu"
            return f"site {client.site}: resources.gpus: {asked:g}, and there is no GPU{hidden_text()}; {remedy}"
        if asked and asked > most:
            return f"site {client.site}: resources.gpus: {asked:g}, and no node has more than {most:g}; ask for less"
        if asked == 0 and plan.device == "cuda" and engine.backend == "ray":
            return f"site {client.site}: resources.gpus: 0 leaves it without a place to train; give it a share, say 0.1"
    return None


def _gpu_memory(plan: Plan) -> str | None:
    """A client's network and batch, or a fused group's, that are larger than a GPU."""
    sizes = [node.gpu_usable for node in plan.machine.nodes if math.isfinite(node.gpu_memory)]
    if plan.gpu is None or plan.gpu.total <= min(sizes, default=math.inf):
        return None
    fuse, usable = plan.workload.training.fuse, min(sizes)
    needed = f"need {bytes_text(plan.gpu.total)} of a GPU, and {bytes_text(usable)} of it can be used"
    time = plan.workload.time
    if time and plan.gpu.total - plan.gpu.apart <= usable:
        key = "time.hierarchy.regions" if time.hierarchy else "time.concurrency"
        return f"{key}: clients that read {plan.apart.read} states of the server at once {needed}; lower it"
    once = CUDA_BYTES + plan.gpu.received
    fitting = math.floor(fuse * (usable - once) / (plan.gpu.total - once))
    if fitting >= 1:
        return f"training.fuse: networks and batches of {fuse} clients {needed}; set it to {fitting} or less"
    remedy = "lower it, or model.channels, or set engine.device to cpu"
    return f"training.batch_size: a network and a batch {needed}; {remedy}"


def _reservations(plan: Plan) -> str | None:
    """Reservations of actors that together exceed the nodes, so that some actors would never start."""
    nodes = plan.machine.nodes
    most = max(node.actor_memory for node in nodes)
    for client in plan.clients if plan.workload.engine.backend == "ray" else ():
        if _GB * (client.resources.memory or 0) > most:
            asked = f"{client.resources.memory:g} GB, and Ray counts no more than {bytes_text(most)} on any node"
            return f"site {client.site}: resources.memory: {asked}; at most {_floor(most / _GB)}"
    placements = [actor.placement for actor in plan.actors]
    left = unplaced(placements, nodes)
    if not left:
        return None
    auto = "" if plan.workload.engine.clients_per_actor == "auto" else ", or engine.clients_per_actor to auto"
    if unplaced([replace(placement, memory=0.0) for placement in placements], nodes):
        gpus = sum(math.floor(node.gpus) for node in nodes)
        if any(map(unasked, left)):
            others = sum(map(unasked, placements))
            return (
                f"resources.gpus: those that are asked for leave none to {others} actors of other sites; ask for less"
            )
        value = _floor(1 / math.ceil(len(placements) / gpus))
        asked = f"{len(placements)} actors ask for {left[0].gpus:g} each, and the nodes have {gpus} in all"
        return f"resources.gpus: {asked}; set it to at most {value}{auto}"
    value = _floor(min(node.actor_memory for node in nodes) / math.ceil(len(placements) / len(nodes)) / _GB)
    asked = (
        f"{len(placements)} actors ask for up to {bytes_text(max(placement.memory for placement in placements))} each"
    )
    there = f"{bytes_text(sum(node.actor_memory for node in nodes))} in all"
    return f"resources.memory: {asked}, and Ray counts {there}; set it to at most {value}{auto}"


def _gpu_shares(plan: Plan) -> str | None:
    """Actors that together need more memory than a GPU has."""
    sizes = [node.gpu_usable for node in plan.machine.nodes if math.isfinite(node.gpu_memory)]
    shares = [actor.placement.gpus for actor in plan.actors if actor.placement.gpus]
    if plan.gpu is None or not sizes or not shares:
        return None
    usable, least = min(sizes), min(shares)
    if plan.gpu.total <= (least + SMALLEST_SHARE) * usable:
        return None
    what = f"{math.floor(1 / least)} actors on a GPU need {bytes_text(plan.gpu.total)} each"
    there = f"and {bytes_text(usable)} of it can be used"
    return f"resources: {what}, {there}; give more sites the same resources, so that their clients share an actor"


def _driver(plan: Plan) -> str | None:
    """A driver that needs more memory than its node has, perhaps for what the method keeps of single clients."""
    needs = plan.nodes[0]
    if needs.other_bytes <= usable_bytes(needs.node):
        return None
    what = f"driver and Ray need {bytes_text(needs.other_bytes)} with {plan.cohort} clients in a round"
    what += f", and {needs.node.name} has {bytes_text(needs.node.total_memory)}"
    if any(phase.collected for phase in plan.traffic.phases.values()):
        return f"training.participation: {what}; lower it, or let the method keep no vectors of single clients"
    return f"engine.backend: {what}; set it to serial, or take a larger machine"


def _actors(plan: Plan) -> str | None:
    """Actors that do not fit into memory, whatever their clients keep there."""
    for needs in plan.nodes:
        free = usable_bytes(needs.node) - needs.other_bytes
        if needs.process_bytes <= free:
            continue
        count = "an actor" if needs.actors == 1 else f"{needs.actors} actors"
        what = f"{count} of {bytes_text(needs.process_bytes / needs.actors)}"
        what += f" and {bytes_text(needs.other_bytes)} for driver and Ray"
        what += f" do not fit into the {bytes_text(needs.node.total_memory)} of {needs.node.name}"
        fitting = math.floor(free * needs.actors / needs.process_bytes)
        if needs.actors == 1 or fitting < 1:
            return f"training.batch_size: {what}; lower it, or model.channels"
        auto = plan.workload.engine.clients_per_actor != "auto" and needs.slots <= fitting
        value = math.ceil(needs.clients / fitting)
        return f"engine.clients_per_actor: {what}; set it to {'auto' if auto else f'{value} or more'}"
    return None


def _memory(plan: Plan) -> str | None:
    """What clients keep in memory, if it exceeds what the actors leave free."""
    for needs in plan.nodes:
        free = usable_bytes(needs.node) - needs.other_bytes - needs.process_bytes
        if needs.state_bytes + needs.slice_bytes <= free:
            continue
        kept = (
            f"{bytes_text(needs.state_bytes)} of private state and {bytes_text(needs.slice_bytes)} of training slices"
        )
        what = f"{kept} do not fit into the {bytes_text(max(free, 0))} that actors, driver and Ray leave of"
        what += f" {bytes_text(needs.node.total_memory)} on {needs.node.name}"
        if free > needs.slice_bytes:
            return f"engine.state_memory: {what}; set it to at most {_floor((free - needs.slice_bytes) / _GB)}"
        half = _floor(max(free, 0) / 2 / _GB)
        return f"engine.slice_memory: {what}; set it and engine.state_memory to at most {half} each"
    return None


_BEFORE = (_labels, _gpus, _gpu_memory, _reservations, _gpu_shares, _driver, _actors, _memory)
_SIZES = (_gpu_memory, _gpu_shares, _driver, _actors, _memory)


def _floor(value: float) -> str:
    """Two decimals, rounded down; three significant digits if it is small."""
    digits = 2 if value >= 1 else 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{math.floor(value * 10**digits) / 10**digits:g}"
