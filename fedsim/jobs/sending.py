"""Sending a job: checked against the nodes that it would have, once, and noted."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedsim.config import Workload
from fedsim.data.source import FileSource
from fedsim.display import duration
from fedsim.engine.federation import assemble
from fedsim.engine.fits import check_fits, plan_run, refuse, warnings
from fedsim.engine.host import make_learner
from fedsim.engine.machine import Disk, Machine, Room, machine_of
from fedsim.engine.placement import granted
from fedsim.engine.rundir import Run, check_same, setup_of
from fedsim.errors import InputError
from fedsim.jobs.receipts import receipts, write_receipt
from fedsim.jobs.submission import Job
from fedsim.jobs.target import RUNS, Target
from fedsim.jobs.targets import shares_files, source_of

Tell = Callable[[str], None]


def send(target: Target, job: Job, tell: Tell) -> bool:
    """Submit a job, unless it runs or is done already; returns whether there is something to wait for.

    Raises:
        InputError: nothing answers there, the job does not fit, or its folder is not its own.
        RunError: the cluster refused the job.
    """
    submission, here = job.submission, shares_files(target)
    state = target.status(submission.id).state
    done = state == "succeeded" and (submission.out.exists() or not here)
    sent = not done and state not in RUNS
    if sent:
        _check_folder(target, job, here)
        _check_plan(target, job, here, tell)
        target.submit(submission)
    how = f"submitted to {target.name}" if sent else f"is {'done' if done else state} already"
    tell(f"{submission.id}: {how}, in {submission.out}")
    if sent or submission.id not in {receipt.id for receipt in receipts()}:
        write_receipt(target, job)
    return not done


def _check_folder(target: Target, job: Job, here: bool) -> None:
    """Refuse the folder of another workload's run, or of a job that runs."""
    out = job.submission.out
    others = [receipt for receipt in receipts() if receipt.out == out and receipt.cluster == source_of(target)]
    for other in others:
        if other.id != job.submission.id and target.status(other.id).state in RUNS:
            raise InputError(f"--out {out}: {other.id} is writing there; stop it first, or choose another folder")
    if here and job.kind == "run" and (out / "workload.yaml").exists():
        try:
            check_same(Run(out).workload.settled(), job.workloads[0].settled())
        except InputError as error:
            raise InputError(f"--out {out}: holds another run, {error}; choose another folder") from error


def _check_plan(target: Target, job: Job, here: bool, tell: Tell) -> None:
    """Refuse what cannot fit."""
    for workload in job.workloads:
        if workload.engine.backend != "ray" and job.kind == "run":  # a study runs serial points side by side
            raise InputError(f"engine.backend: {workload.engine.backend} runs in one process; a cluster needs ray")
        missing = None if here else _missing(workload)
        if missing:
            tell(f"{missing} is not on this machine; whether the cluster has it, and room, is looked at there")
            return
    rooms = target.rooms()
    if rooms is None:
        for workload in job.workloads:
            assemble(workload.settled())
        tell(f"{target.name} does not say what its nodes have; whether the job fits is looked at there")
        return
    _check_rooms(job, rooms, here, tell)


def _check_rooms(job: Job, rooms: tuple[Room, ...], here: bool, tell: Tell) -> None:
    out = job.submission.out
    if job.kind == "run":
        workload = job.workloads[0]
        plan = plan_run(workload, out, _machine(workload, out, rooms, here))
        refuse(plan)
        said = warnings(plan)
        time = f", about {duration(plan.times.total)}" if plan.times else ""
        tell(f"{len(plan.clients)} clients in {len(plan.homes)} actors on {len(plan.nodes)} nodes{time}")
    else:
        said = [line for workload in job.workloads for line in _warnings(workload.settled(), out, rooms, here)]
    for line in dict.fromkeys(said):
        tell(line)


def _warnings(workload: Workload, out: Path, rooms: tuple[Room, ...], here: bool) -> list[str]:
    """By sizes alone: a study has too many runs to time a client of each."""
    machine = _machine(workload, out, rooms, here)
    return check_fits(workload, assemble(workload), make_learner(setup_of(workload)), out, machine)


def _machine(workload: Workload, out: Path, rooms: tuple[Room, ...], here: bool) -> Machine:
    """The target's nodes, as far as the workload wants them, with this machine's disks if it has the same."""
    nodes = {node.id: node for node in granted(workload.engine, [room.node for room in rooms])}
    every = workload.engine.model_copy(update={"nodes": None, "cores": None})  # they count the target's, not this one's
    machine = machine_of(workload.model_copy(update={"engine": every}), out)
    machine = replace(machine, rooms=tuple(replace(r, node=nodes[r.node.id]) for r in rooms if r.node.id in nodes))
    if here:
        return machine
    return replace(machine, cache=Disk(machine.cache.folder, math.inf), out=Disk(out, math.inf, 1))


def _missing(workload: Workload) -> Path | None:
    """Data that this machine does not have."""
    root = workload.federation.root
    sources = [site.source for site in workload.federation.expanded_sites()]
    paths = (root / source.path for source in sources if isinstance(source, FileSource))
    return next((path for path in paths if not path.exists()), None)
