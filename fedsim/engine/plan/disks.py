"""What a plan writes to disks, how many files it opens, and whether that fits."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from fedsim.core.text import bytes_text
from fedsim.data.samples import training_bytes
from fedsim.engine.place.node import Disk
from fedsim.engine.plan.needs import NodeNeeds, usable_bytes
from fedsim.engine.plan.plan import Plan

_GB = 1e9
_OTHER_FILES = 256  # that a process with clients has open
_OTHER_FOLDER = "choose a folder with more space"
_OTHER_OUT = "choose an --out with more space"


class Advice(NamedTuple):
    """A remedy for a need that does not fit."""

    key: str
    """The key or the command-line argument to change."""
    what: str
    helps: bool
    """Whether the run fits with the value that it names."""


@dataclass(frozen=True, kw_only=True)
class DiskNeed:
    """What a run writes to a disk of the driver's node."""

    what: str
    """What is written, for messages."""
    disk: Disk
    size: float
    """Size [bytes]."""
    advice: Callable[[float], Advice]
    """What to do, given the free space [bytes]."""


def disk_needs(plan: Plan) -> list[DiskNeed]:
    """What a run writes: private state, checkpoints, shards; private state only if the scratch disk is known."""
    driver, machine = plan.nodes[0], plan.machine
    saved = max(0.0, plan.checkpoints_bytes - machine.out_bytes)
    needs = [
        DiskNeed(
            what="checkpoints",
            disk=machine.out,
            size=saved,
            advice=lambda free: _fewer_checkpoints(plan, free + machine.out_bytes),
        ),
        DiskNeed(
            what="shards",
            disk=machine.cache,
            size=plan.cache_bytes,
            advice=lambda free: Advice("federation.cache", _OTHER_FOLDER, helps=False),
        ),
    ]
    scratch = driver.node.scratch
    if scratch is not None:
        state = driver.scratch_bytes
        needs.insert(
            0, DiskNeed(what="private state", disk=scratch, size=state, advice=lambda free: _less_scratch(driver, free))
        )
    return needs


def _fewer_checkpoints(plan: Plan, free: float) -> Advice:
    wholes = 1 + bool(plan.workload.metrics.every)
    fitting = math.floor((free - wholes * plan.checkpoint_bytes) / plan.written_bytes)
    if fitting > 0:
        return Advice("engine.keep_last", f"set it to {fitting}, or {_OTHER_OUT}", helps=True)
    if free >= plan.checkpoint_bytes and plan.checkpoints > 1:
        return Advice("engine.checkpoint_every", f"set it to 0, for one at the end, or {_OTHER_OUT}", helps=True)
    return Advice("--out", _OTHER_FOLDER, helps=False)


def _less_scratch(needs: NodeNeeds, free: float) -> Advice:
    spare = usable_bytes(needs.node) - needs.memory_bytes
    needed = needs.scratch_bytes - free
    if needed >= spare:
        return Advice("engine.scratch", _OTHER_FOLDER, helps=False)
    value = math.ceil((needs.state_bytes + needed) / _GB * 10) / 10
    return Advice(
        "engine.state_memory", f"set it to {value:g}, or engine.scratch to a folder with more space", helps=True
    )


def _disks(plan: Plan) -> str | None:
    """Disks of the driver's node; folders may share one."""
    needs = sorted((need for need in disk_needs(plan) if need.size), key=lambda need: -need.size)
    for number in {need.disk.number: None for need in needs}:
        here = [need for need in needs if need.disk.number == number]
        free, needed = min(need.disk.free for need in here), sum(need.size for need in here)
        if needed > free:
            advices = [need.advice(free - (needed - need.size)) for need in here]
            advice = next((advice for advice in advices if advice.helps), advices[0])
            what = " and ".join(f"{bytes_text(need.size)} of {need.what}" for need in here)
            where = " and ".join(str(need.disk.folder) for need in here)
            return (
                f"{advice.key}: {what} do not fit into the {bytes_text(free)} that are free for {where}; {advice.what}"
            )
    return None


def _scratch_elsewhere(plan: Plan) -> str | None:
    """Scratch folders of nodes other than the driver's, as far as they were examined."""
    for needs in plan.nodes[1:]:
        disk = needs.node.scratch
        if disk is not None and needs.scratch_bytes > disk.free:
            advice = _less_scratch(needs, disk.free)
            what = f"{bytes_text(needs.scratch_bytes)} of private state do not fit into the {bytes_text(disk.free)}"
            return f"{advice.key}: {what} that are free for {disk.folder} of {needs.node.name}; {advice.what}"
    return None


def _open_files(plan: Plan) -> str | None:
    """A client that reads more shards at once than a process may open; slices in memory need no open shard."""
    actor = max(plan.actors, key=lambda actor: actor.open_shards)
    limit = plan.machine.open_files
    if actor.open_shards + _OTHER_FILES <= limit:
        return None
    if limit < _OTHER_FILES:
        need = f"one with clients needs {_OTHER_FILES}"
        return f"a process may have {limit} files open (ulimit -n), and {need}; raise the limit"
    needs = plan.nodes[actor.placement.node]
    slices = sum(training_bytes(m) for client in actor.placement.clients for m in client.data.members)
    what = f"a client reads {actor.open_shards} shards at once, and a process may have {limit} files open"
    if slices - actor.slice_bytes < usable_bytes(needs.node) - needs.memory_bytes:
        value = math.ceil(needs.actors * slices / _GB * 10) / 10
        return f"engine.slice_memory: {what}; set it to {value:g}, so that slices stay in memory"
    return f"engine.slice_memory: {what}, and memory cannot hold its slices; raise the limit (ulimit -n)"


CHECKS = (_scratch_elsewhere, _disks, _open_files)
