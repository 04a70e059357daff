"""The plan of a run as tables for the terminal: what runs, what it needs, and what a round costs."""

import math
from collections import Counter
from collections.abc import Callable

import torch
from rich import box
from rich.markup import escape
from rich.table import Table

from fedsim.core.text import bytes_text, counted, duration
from fedsim.engine.place.gpus import Gpu, driver_version, software_text
from fedsim.engine.place.labels import kinds_text, labels_text
from fedsim.engine.place.node import CUDA_BYTES
from fedsim.engine.place.placement import usable
from fedsim.engine.plan.disks import disk_needs
from fedsim.engine.plan.memory import GpuNeeds
from fedsim.engine.plan.needs import NodeNeeds, usable_bytes
from fedsim.engine.plan.plan import Plan, Spread, spread
from fedsim.engine.plan.times import Times
from fedsim.engine.plan.virtual import Virtual

_MOST_ROWS = 40
_NOTICEABLE = 1.2  # of a run's time


def busy_line(times: Times) -> str | None:
    """The warning for a plan that was made on a busy machine."""
    if times.beside_others < _NOTICEABLE * times.total:
        return None
    return (
        f"other programs asked for {times.others:.1f} cores of this machine while a client was timed; the plan's "
        f"{duration(times.total)} is for an idle one; expect about {duration(times.beside_others)} while they run"
    )


def plan_tables(plan: Plan) -> list[Table]:
    """What runs, what it needs, and what a round costs."""
    shares = [_shares_table(plan)] if plan.workload.federation.partition.kind != "equal" else []
    virtual = [_virtual_table(plan, plan.virtual)] if plan.virtual else []
    return [_runs_table(plan), *shares, _needs_table(plan), _round_table(plan), *virtual]


def _shares_table(plan: Plan) -> Table:
    """The training data that a skewed partition gives each client."""
    more = len(plan.clients) - _MOST_ROWS
    table = Table(
        box=box.SIMPLE_HEAD, title="training data of each client", caption=f"and {more} more" if more > 0 else None
    )
    for column in ("client", "subjects", "slices", "of all"):
        table.add_column(column, justify="left" if column == "client" else "right", no_wrap=True)
    table.add_column("slices by contrast", overflow="fold")
    total = sum(client.data.samples() for client in plan.clients)
    for client in plan.clients[:_MOST_ROWS]:
        train = [piece for one in client.data.members for piece in one.pieces if piece.part == "train"]
        mix = Counter[str]()
        for piece in train:
            mix[piece.contrast or "unknown"] += piece.stop - piece.start
        slices = client.data.samples()
        contrasts = ", ".join(f"{contrast} {count}" for contrast, count in sorted(mix.items()))
        subjects = len({piece.subject for piece in train})
        table.add_row(client.name, str(subjects), str(slices), f"{100 * slices / total:.1f} %", escape(contrasts))
    return table


def _runs_table(plan: Plan) -> Table:
    workload, clients = plan.workload, len(plan.clients)
    sites = len({member.site for client in plan.clients for member in client.data.members})
    table = Table(box=box.SIMPLE, show_header=False, title=f"{workload.name}: what runs")
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("method", f"{workload.algorithm.name}, {workload.training.rounds} rounds{_fused(plan)}")
    who = f"{clients:,} of {sites:,} sites, {plan.cohort:,} in a round"
    if plan.registered > clients:
        who = f"{plan.registered:,} registered, {plan.cohort:,} in a round"
    table.add_row("clients", who)
    table.add_row("training slices", f"{_between(plan.slices, '{:.0f}'.format)} per client")
    table.add_row("actors", _actors(plan))
    if plan.workload.engine.backend == "ray" and any(client.resources.labels for client in plan.clients):
        table.add_row("node labels", escape(_labels(plan)))
    if any(node.gpus for node in plan.machine.nodes):
        table.add_row("GPUs", escape(_gpus(plan)))
    grows = (
        f"; after two rounds, and still growing by {bytes_text(plan.growth_bytes)} per round"
        if plan.growth_bytes
        else ""
    )
    table.add_row(
        "private state",
        f"{_between(plan.private, bytes_text)} per client, {bytes_text(plan.private_bytes)} in all{grows}",
    )
    return table


def _together(plan: Plan) -> int:
    """Clients of an actor that train at once."""
    return 1 if plan.one_by_one else plan.workload.training.fuse


def _fused(plan: Plan) -> str:
    """How many clients train as one network, where training.fuse asks for it."""
    if plan.workload.training.fuse == 1:
        return ""
    return (
        f"; one by one: {plan.one_by_one}"
        if plan.one_by_one
        else f"; up to {plan.workload.training.fuse} clients as one network"
    )


def _actors(plan: Plan) -> str:
    if plan.workload.engine.backend == "serial":
        together = _together(plan)
        return f"none: clients train in this process, {together if together > 1 else 'one'} at a time"
    most = max((len(actor.placement.clients) for actor in plan.actors), default=0)
    fewest = min((len(actor.placement.clients) for actor in plan.actors), default=0)
    where = f"{len(plan.nodes)} nodes" if len(plan.nodes) > 1 else "one node"
    each = f"{'up to ' if fewest < most else ''}{most} client{'s' if most > 1 else ''}"
    each += " each" if len(plan.actors) > 1 else ""
    slots = sum(node.slots for node in plan.nodes)
    gpus = _between(spread(actor.placement.gpus for actor in plan.actors), "{:.2g}".format)
    share = f", each with {gpus} of a GPU" if any(actor.placement.gpus for actor in plan.actors) else ""
    at_once = f"{slots} train at once{_in_turns(plan, slots)} ({plan.device})"
    return f"{len(plan.actors)} with {each} on {where}{share}; {at_once}"


def _labels(plan: Plan) -> str:
    """The labels that clients ask for and how many nodes carry them; then the labels that nodes have."""
    nodes, counts = plan.machine.nodes, Counter(client.resources for client in plan.clients)
    asked = [
        f"{labels_text(needs.labels) or 'any'} for {counted(clients, 'client')}, "
        f"on {len(usable(nodes, [needs]))} of {counted(len(nodes), 'node')}"
        for needs, clients in counts.items()
    ]
    return "; ".join(asked) + f" (Ray has {kinds_text(node.labels for node in nodes)})"


def _in_turns(plan: Plan, slots: int) -> str:
    """How often clients take turns in a round."""
    turns = math.ceil(plan.cohort / max(slots * _together(plan), 1))
    return f", in {turns:,} turns" if turns > 1 else ""


def _gpus(plan: Plan) -> str:
    """The GPUs of all nodes, and whether clients train on them."""
    kinds = Counter[str]()
    for node in plan.machine.nodes:
        kinds[str(Gpu(node.gpu_name, node.gpu_memory))] += int(node.gpus)
    used = software_text(driver_version(), torch.version.cuda) if plan.device == "cuda" else "clients train on the CPU"
    found = ", ".join(f"{count} x {kind}" for kind, count in kinds.items() if count)
    return "; ".join(filter(None, [found, used]))


def _needs_table(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="what it needs")
    for column in ("", "needs", "there is"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    table.add_column("where", overflow="fold")
    first, *others = plan.nodes
    _add_node(table, plan, first, first.node.name)
    if others:
        fullest = max(others, key=lambda needs: (needs.memory_bytes / usable_bytes(needs.node), needs.scratch_bytes))
        _add_node(table, plan, fullest, f"{fullest.node.name}, the fullest of {len(others)} other nodes")
    if plan.gpu is not None and plan.actors:
        _add_gpu(table, plan, plan.gpu)
    counts = {"checkpoints": f" ({plan.checkpoints} at a time)", "shards": f" ({plan.missing_shards:,} to make)"}
    for need in disk_needs(plan):
        name = f"disk: {need.what}{counts.get(need.what, ' beyond memory')}"
        _add_need(table, name, need.size, need.disk.free, str(need.disk.folder))
    return table


def _add_node(table: Table, plan: Plan, needs: NodeNeeds, where: str) -> None:
    _add_need(table, "memory", needs.memory_bytes, usable_bytes(needs.node), where)
    serial = plan.workload.engine.backend == "serial"
    parts = {
        "this process" if serial else f"{needs.actors:,} actor{'s' if needs.actors != 1 else ''}": needs.process_bytes,
        "private state": needs.state_bytes,
        "training slices": needs.slice_bytes,
        "server and sums" if serial else "driver, Ray, object store": needs.other_bytes,
    }
    for name, size in parts.items():
        table.add_row(f"  {name}", f"[dim]{bytes_text(size)}", "", "")
    if needs is not plan.nodes[0] and needs.node.scratch is not None:
        _add_need(table, "disk: private state beyond memory", needs.scratch_bytes, needs.node.scratch.free, where)


def _add_gpu(table: Table, plan: Plan, work: GpuNeeds) -> None:
    """The memory of a GPU that the fullest actor takes."""
    actor = max(plan.actors, key=lambda actor: actor.gpu_state_bytes + actor.slice_bytes)
    share = min(actor.placement.gpus or 1.0, 1.0)
    kept = actor.gpu_state_bytes + actor.slice_bytes
    there = share * plan.machine.nodes[actor.placement.node].gpu_usable
    _add_need(table, "memory of a GPU, for an actor", work.total + kept, there, f"{share:.2g} of a GPU")
    fuse = plan.workload.training.fuse
    parts = {
        "CUDA": CUDA_BYTES,
        "weights, gradients, optimizer": work.vectors,
        "what the server sends": work.received,
        "activations" + (f" of {fuse} batches" if fuse > 1 else " of a batch"): work.activations,
        "private state": actor.gpu_state_bytes,
        "training slices": actor.slice_bytes,
    }
    for name, size in parts.items():
        table.add_row(f"  {name}", f"[dim]{bytes_text(size)}", "", "")


def _add_need(table: Table, name: str, needed: float, there: float, where: str) -> None:
    table.add_row(name, bytes_text(needed), bytes_text(there), escape(where), style="red" if needed > there else "")


def _round_table(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, title="what a round costs")
    table.add_column(no_wrap=True)
    table.add_column()
    unknown = plan.traffic.unknown
    for name, size in (("up", plan.uplink_bytes), ("down", plan.downlink_bytes)):
        known = f"{bytes_text(size)} per client, {bytes_text(plan.cohort * size)} in all"
        table.add_row(name, "unknown" if unknown else known)
    collected = plan.cohort * max((phase.collected for phase in plan.traffic.phases.values()), default=0.0)
    single = f"; {bytes_text(collected)} of individual clients' vectors during a round" if collected else ""
    kept = f"unknown: {unknown}" if unknown else f"{bytes_text(plan.traffic.server)}{_beside(plan)}{single}"
    table.add_row("the server keeps", escape(kept))
    anew = (
        f", {bytes_text(plan.written_bytes)} of it written anew" if plan.written_bytes < plan.checkpoint_bytes else ""
    )
    every = _every(plan.workload.engine.checkpoint_every)
    table.add_row("checkpoint", f"{bytes_text(plan.checkpoint_bytes)}{anew}, {every}")
    if plan.times is not None:
        _add_times(table, plan, plan.times)
    return table


def _beside(plan: Plan) -> str:
    """What the server keeps beside its present state, in simulated time."""
    others, time = plan.apart.others, plan.workload.time
    if not others or time is None:
        return ""
    what = f"of {others} regions" if time.hierarchy else f"of {others} earlier versions"
    return f"; {bytes_text(others * plan.traffic.server)} {what}"


def _add_times(table: Table, plan: Plan, times: Times) -> None:
    every = plan.workload.metrics.every
    rounds = plan.workload.training.rounds
    table.add_row("a client's work", f"{_between(times.client, _short)}, alone on its core")
    table.add_row("training of all", _short(times.round))
    if every:
        table.add_row("validation of all", f"{_short(times.validation)}, {_every(every)}")
    table.add_row("writing a checkpoint", f"{_short(times.checkpoint)} on an ordinary disk")
    shards = f", and {_short(times.shards)} in round 1 for shards" if plan.missing_shards else ""
    table.add_row("start-up", f"{_short(times.start)}{shards}")
    most = "at most " if plan.workload.training.early_stopping or plan.apart.asked > plan.cohort else ""
    table.add_row(f"all {rounds} rounds" if rounds > 1 else "in all", f"[bold]{most}{_short(times.total)}")


def _virtual_table(plan: Plan, virtual: Virtual) -> Table:
    """The run in simulated time."""
    time, rounds = plan.workload.time, plan.workload.training.rounds
    caption = f"by the first {virtual.rounds:,} rounds" if virtual.rounds < rounds else None
    table = Table(box=box.SIMPLE, show_header=False, title="in simulated time", caption=caption)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("mode", time.mode if time else "")
    table.add_row(f"all {rounds} rounds" if rounds > 1 else "in all", f"[bold]{_short(virtual.seconds)}")
    table.add_row("clients at work", f"{virtual.at_work:.3g} on average")
    if virtual.stalest:
        table.add_row("staleness", f"{virtual.staleness:.2g} server steps on average, {virtual.stalest} at most")
    shares = ", ".join(f"{100 * share:.3g} % {outcome}" for outcome, share in virtual.shares.items())
    table.add_row("turns", shares)
    return table


def _every(rounds: int) -> str:
    return "every round" if rounds == 1 else f"every {rounds} rounds" if rounds else "at the end"


def _between(spread: Spread, say: Callable[[float], str]) -> str:
    """One value if all are equal, else smallest to largest and the median."""
    low, middle, high = map(say, spread)
    return middle if low == high else f"{low} to {high} (median {middle})"


def _short(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{seconds:.2g} s"
