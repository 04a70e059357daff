"""Sending a job: check it against the nodes that it would get, submit it once, and record it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedsim.core.errors import InputError, RunError
from fedsim.core.text import duration
from fedsim.data.source import FileSource
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.federation import assemble
from fedsim.engine.host.training import make_learner
from fedsim.engine.place.machine import Machine, machine_of
from fedsim.engine.place.node import Disk, Node
from fedsim.engine.place.placement import granted, nodes_missing
from fedsim.engine.plan.advice import warnings
from fedsim.engine.plan.fits import check_fits, check_time, plan_run, refuse
from fedsim.engine.record.claim import check_unclaimed
from fedsim.engine.record.kept import copy_name, files_of
from fedsim.engine.record.resuming import check_goes_on
from fedsim.engine.record.run_directory import setup_of
from fedsim.jobs.kept import forget, kept_status
from fedsim.jobs.local import Local
from fedsim.jobs.receipts import receipts, write_receipt
from fedsim.jobs.state import check_state
from fedsim.jobs.submission import Job
from fedsim.jobs.target import RUNS, State, Target
from fedsim.jobs.targets import shares_files, source_of
from fedsim.study.frozen import check_folder
from fedsim.study.runner import check_data
from fedsim.workload.engine import Engine
from fedsim.workload.schema import Workload
from fedsim.workload.superseded import superseded

Tell = Callable[[str], None]


def submit_all(target: Target, jobs: Sequence[Job], tell: Tell, begin: Callable[[], None] = lambda: None) -> list[Job]:
    """Check all jobs, then submit those that are neither running nor done; returns those still to wait for.

    Args:
        target: The cluster; a local one is started if necessary, and stopped again if it then refuses the job.
        jobs: What to run there.
        tell: Called with lines for the user.
        begin: Called between the checks and the first submission, to write to disk.

    Raises:
        InputError: no cluster answers, a job does not fit, its folder belongs to another, or jobs cannot be recorded;
            nothing was sent.
        RunError: the cluster refused a job.
    """
    local = target if isinstance(target, Local) and not target.is_up() else None
    left = [job for job in jobs if check(target, job, tell, there=local is None)]
    check_state()
    begin()
    if local is not None and left:
        local.bring_up(tell)
    try:
        if local is not None and left and not local.foresees():
            left = [job for job in left if check(target, job, tell)]
        return [job for job in jobs if _send(target, job, tell, new=job in left)]
    except (InputError, RunError):
        if local is not None:
            local.take_down()
        raise


def check(target: Target, job: Job, tell: Tell = lambda _: None, *, there: bool = True) -> bool:
    """Refuse a bad job before anything is started or sent; returns whether there is anything to send.

    Args:
        target: The cluster.
        job: What to run there.
        tell: Called with lines for the user.
        there: Whether the cluster must answer; otherwise what it does not say is not checked.

    Raises:
        InputError: the job does not fit, its folder belongs to another, or a cluster that must answer does not.
    """
    target.render(job.submission)
    state = _state(target, job.submission.id, there)
    if state in RUNS or _is_done(target, job, state):
        return False
    here = shares_files(target)
    _check_folder(target, job, here, there)
    _check_plan(target, job, tell, there)
    return True


def _send(target: Target, job: Job, tell: Tell, new: bool) -> bool:
    """Submit a job unless it is running or done; returns whether there is anything to wait for."""
    submission = job.submission
    if new:
        forget(submission.id)
        target.submit(submission)
    state = "pending" if new else _state(target, submission.id, there=False)
    done = not new and state not in RUNS
    how = f"submitted to {target.name}" if new else f"is {'done' if done else state} already"
    tell(f"{submission.id}: {how}, in {submission.out}")
    if new or submission.id not in {receipt.id for receipt in receipts()}:
        write_receipt(target, job)
    return not done


def _state(target: Target, job_id: str, there: bool) -> State:
    """The status of a job; if its cluster is gone, from what the job left behind."""
    kept = kept_status(job_id)
    try:
        state = target.status(job_id).state
    except (InputError, RunError):
        if there:
            raise
        state = "unknown"
    if state in RUNS and kept is not None:  # the cluster is about to notice
        state = target.wait(job_id).state
    return kept.state if kept is not None and state == "unknown" else state


def _is_done(target: Target, job: Job, state: State) -> bool:
    return state == "succeeded" and (job.submission.out.exists() or not shares_files(target))


def _check_folder(target: Target, job: Job, here: bool, there: bool) -> None:
    """Refuse a folder that holds something else or that a running job writes to."""
    out = job.submission.out
    others = [receipt for receipt in receipts() if receipt.out == out and receipt.cluster == source_of(target)]
    for other in others:
        if other.id != job.submission.id and _state(target, other.id, there) in RUNS:
            raise InputError(f"--out {out}: {other.id} is writing there; stop it first, or choose another folder")
    if here:
        check_unclaimed(out)
    if here and job.plan is not None:
        check_folder(job.plan, out)
    elif here and (out / "workload.yaml").exists():
        try:
            check_goes_on(out, job.workloads[0].settled())
        except InputError as error:
            raise InputError(f"--out {out}: holds another run, {error}; choose another folder") from error
    elif here and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists and is not a run (it has no workload.yaml); choose another folder")


def _check_plan(target: Target, job: Job, tell: Tell, there: bool) -> None:
    """Refuse a job that cannot run or does not fit."""
    here = shares_files(target)
    for workload in job.workloads:
        if workload.engine.backend != "ray" and job.kind != "study":  # which runs serial points in parallel
            raise InputError(f"engine.backend: {workload.engine.backend} runs in one process; a cluster needs ray")
        missing = None if here else _missing(workload)
        if missing:
            tell(f"{missing} is not on this machine; whether it exists and fits is checked on the cluster")
            return
    for file in dict.fromkeys(file for workload in job.workloads for file in _named(workload) if not here):
        if copy_name(file) not in job.submission.files:
            tell(f"{file} is too large to be sent; the cluster needs it under the same path")
    if job.plan is not None:
        check_data(job.plan)
    nodes = _nodes(target, there)
    waits = nodes is not None and not here and any(_waits(workload.engine, nodes) for workload in job.workloads)
    if nodes is None or waits:
        for workload in (one.settled() for one in job.workloads):
            check_time(workload, assemble(workload).clients)
        why = "lacks nodes that the job waits for" if waits else "does not say what its nodes have"
        if there:
            tell(f"{target.name} {why}; whether the job fits is checked there")
        return
    _check_fits(job, nodes, here, tell)


def _waits(engine: Engine, nodes: Sequence[Node]) -> bool:
    return engine.nodes_timeout_s is not None and nodes_missing(engine, nodes) > 0


def _nodes(target: Target, there: bool) -> tuple[Node, ...] | None:
    try:
        return target.nodes()
    except (InputError, RunError):
        if there:
            raise
        return None


def _check_fits(job: Job, nodes: tuple[Node, ...], here: bool, tell: Tell) -> None:
    out = job.submission.out
    if job.kind == "run":
        workload = job.workloads[0]
        plan = plan_run(workload, out, _machine(workload, out, nodes, here))
        refuse(plan)
        notes = [*superseded(workload), *warnings(plan)]
        time = f", about {duration(plan.times.total)}" if plan.times else ""
        tell(f"{len(plan.clients)} clients in {len(plan.actors)} actors on {len(plan.nodes)} nodes{time}")
    else:
        notes = [line for workload in job.workloads for line in _warnings(workload.settled(), out, nodes, here)]
    for line in dict.fromkeys(notes):
        tell(line)


def _warnings(workload: Workload, out: Path, nodes: tuple[Node, ...], here: bool) -> list[str]:
    """Check a study's runs by sizes alone: they are too many to time a client of each."""
    machine = _machine(workload, out, nodes, here)
    federation, learner = assemble(workload), make_learner(setup_of(workload))
    timetable = Timetable.of(workload, federation.clients, learner)
    return check_fits(workload, federation, learner, timetable, out, machine)


def _machine(workload: Workload, out: Path, nodes: tuple[Node, ...], here: bool) -> Machine:
    """The target's nodes that the workload asks for, with this machine's disks if the target shares them."""
    allowed = tuple(granted(workload.engine, nodes, workload.federation.kinds_of_needs))
    every = workload.engine.model_copy(update={"nodes": None, "cores": None})  # limits on the target
    machine = replace(machine_of(workload.model_copy(update={"engine": every}), out), nodes=allowed)
    if here:
        return machine
    return replace(machine, cache=Disk(machine.cache.folder, math.inf), out=Disk(out, math.inf, 1))


def _missing(workload: Workload) -> Path | None:
    """The first path of data, or of another file that it names, that does not exist on this machine; None if all do."""
    root = workload.federation.root
    sources = [site.source for site in workload.federation.expanded_sites().entries]
    paths = [root / source.path for source in sources if isinstance(source, FileSource)]
    return next((path for path in (*paths, *_named(workload)) if not path.exists()), None)


def _named(workload: Workload) -> list[Path]:
    """What it names beside data and code: a trace, and what networks start from."""
    return [file for file in files_of(workload).values() if file is not None]
