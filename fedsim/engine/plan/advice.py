"""Advice on a plan: settings that are valid but perhaps not intended."""

import math

import torch

from fedsim.engine.host.kernels import WITHOUT_DETERMINISM
from fedsim.engine.place.labels import labels_text
from fedsim.engine.place.placement import usable, uses_gpus
from fedsim.engine.plan.plan import Plan


def warnings(plan: Plan) -> list[str]:
    """Warnings about settings that are valid but perhaps not intended."""
    return _wide(plan) + _unused_labels(plan) + _idle_gpus(plan) + _idle_rows(plan) + _numerics(plan) + _too_late(plan)


def _wide(plan: Plan) -> list[str]:
    """Clients that ask for more cores than any node has."""
    cores = max(node.cpus for node in plan.machine.nodes)
    wide = [c for c in plan.clients if (c.resources.cpus or 0) > cores and plan.workload.engine.backend == "ray"]
    if not wide:
        return []
    asked = f"site {wide[0].site}: resources.cpus: {wide[0].resources.cpus:g}, and no node has more than {cores:g}"
    return [f"{asked}; {len(wide)} of {len(plan.clients)} clients train alone on their node"]


def _unused_labels(plan: Plan) -> list[str]:
    """Labels of nodes that clients ask for in a run without Ray."""
    asking = [client for client in plan.clients if client.resources.labels]
    if not asking or plan.workload.engine.backend == "ray":
        return []
    what = f"site {asking[0].site}: resources.labels: {labels_text(asking[0].resources.labels)}"
    return [f"{what}, and a serial run has one process, on this machine; labels are for engine.backend ray"]


def _idle_gpus(plan: Plan) -> list[str]:
    """GPUs that exist or are asked for, and that no client trains on."""
    engine = plan.workload.engine
    if plan.device == "cuda":
        return []
    if uses_gpus(engine, plan.machine.nodes):
        return [f"torch {torch.__version__} cannot use the GPUs that Ray counts: clients train on the CPU"]
    asking = [c for c in plan.clients if c.resources.gpus and engine.backend == "serial" and engine.device != "cpu"]
    where = "a serial run trains on the CPU unless engine.device is cuda"
    return [f"site {asking[0].site}: resources.gpus: {asking[0].resources.gpus:g}, and {where}"] if asking else []


def _idle_rows(plan: Plan) -> list[str]:
    """Rows of fused networks that are computed for no client."""
    fuse, drawn = plan.workload.training.fuse, plan.drawn
    if fuse == 1:
        return []
    if plan.one_by_one:
        name = plan.workload.algorithm.name
        return [f"training.fuse: {fuse}, and clients of {name} train one by one: {plan.one_by_one}; set it to 1"]
    if drawn >= fuse:
        return _idle_cores(plan)
    clients = f"{drawn} client{'s' if drawn > 1 else ''}"
    what = f"training.fuse: {fuse}, and an actor trains {clients} in a round, so that {fuse - drawn} rows stay empty"
    engine = plan.workload.engine
    if engine.backend == "serial" or engine.clients_per_actor == "auto":
        return [f"{what}; set it to {drawn}"]
    both = f", and training.fuse to {plan.cohort}" if plan.cohort < fuse else ""
    return [f"{what}; set engine.clients_per_actor to auto{both}"]


def _idle_cores(plan: Plan) -> list[str]:
    """Cores without an actor, since all clients of a round fit into the fused networks of fewer."""
    engine = plan.workload.engine
    nodes = usable(plan.machine.nodes, {client.resources for client in plan.clients})
    slots = sum(max(1, math.floor(node.cpus / engine.threads)) for node in nodes)
    busy = min(slots, plan.cohort)
    if engine.backend == "serial" or engine.clients_per_actor != "auto" or plan.device != "cpu":
        return []
    if len(plan.actors) >= busy:
        return []
    what = f"training.fuse: {plan.workload.training.fuse}, and {len(plan.actors)} of {slots} cores train"
    return [f"{what}; set it to {max(1, plan.cohort // busy)}"]


def _numerics(plan: Plan) -> list[str]:
    """What the device makes of keys that decide about bits."""
    training, said = plan.workload.training, []
    tf32, fused = training.precision == "tf32", training.fuse > 1
    if tf32 and plan.device == "cpu":
        said.append("training.precision: tf32 exists on GPUs only; on the CPU clients train in float32")
    if tf32 and fused and plan.device == "cuda":
        said.append("training.fuse: in tf32, and only there, a client's last bits may depend on those beside it")
    if plan.device == "cuda" and not plan.workload.engine.deterministic:
        said.append(f"engine.deterministic: false: {WITHOUT_DETERMINISM}")
    return said


def _too_late(plan: Plan) -> list[str]:
    """What would happen in simulated time after the last round."""
    rounds, time = plan.workload.training.rounds, plan.workload.time
    said = [
        f"site {site.name}: joins_round: {site.joins_round}, and the run has {rounds} rounds; it takes no part"
        for site in plan.workload.federation.sites
        if (site.joins_round or 0) > rounds
    ]
    hierarchy = time.hierarchy if time else None
    if hierarchy is not None and hierarchy.regions > 1 and hierarchy.rounds_per_sync > rounds:
        what = f"time.hierarchy.rounds_per_sync: {hierarchy.rounds_per_sync}, and the run has {rounds} rounds"
        said.append(f"{what}; regions are never averaged")
    return said
