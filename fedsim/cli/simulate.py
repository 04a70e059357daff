"""fedsim run and fedsim plan: training a workload, and estimating what that takes."""

import logging
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fedsim.cli.common import (
    Address,
    Limit,
    Overrides,
    Overwrite,
    Tags,
    Trust,
    WorkloadFile,
    a_number,
    err,
    free_folder,
    limited,
    out,
    replacing,
    stop_on_signal,
    tagged,
)
from fedsim.core.errors import InputError
from fedsim.core.terminal import print_whole
from fedsim.core.text import counted
from fedsim.engine.record.run_folder import is_run

if TYPE_CHECKING:
    import pandas as pd

    from fedsim.engine.plan.plan import Plan
    from fedsim.engine.plan.scaling import Cluster
    from fedsim.workload.schema import Workload

log = logging.getLogger("fedsim")


def run(
    workload: WorkloadFile,
    overrides: Overrides = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/NAME, numbered.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in --out.")] = False,
    overwrite: Overwrite = False,
    tags: Tags = None,
    trust: Trust = False,
    address: Address = None,
    walltime: Limit = None,
) -> None:
    """Train a workload, test its best round, and write a report."""
    limit = limited(walltime)
    from fedsim.cli.progress import progress_of
    from fedsim.engine.observer import Observers
    from fedsim.engine.record.claim import claim_numbered
    from fedsim.engine.simulation import Simulation
    from fedsim.engine.tracking.tracking import tracked
    from fedsim.workload.reading import load_workload
    from fedsim.workload.superseded import superseded

    if resume:
        _check_resume(out_dir, overwrite, trust)
    loaded = load_workload(workload, tagged(overrides, tags))
    begins = first_line(loaded)
    default = Path("runs") / loaded.name
    claimed = out_dir or (default if overwrite else claim_numbered(default))
    path = claimed if isinstance(claimed, Path) else claimed.folder
    with tracked(loaded.trackers, path) as trackers:
        with (
            replacing(path, overwrite) as begun,
            progress_of(loaded, out) as shown,
            Simulation(
                loaded, claimed, resume=resume, address=address, observer=Observers(shown, trackers)
            ) as simulation,
        ):
            out.print(f"{begins}, into {path}", soft_wrap=True)
            for line in superseded(loaded, overrides or []) if not resume else ():
                log.warning(line)
            with stop_on_signal() as stopped:
                done = simulation.run(begun(stopped), walltime=limit)
            if done:
                out.print("testing the best round")
            frame = simulation.evaluate() if done else None
        if frame is not None:
            _conclude(frame, path)
    if frame is None:
        _stopped(path, limit.why)


def _stopped(path: Path, why: str) -> NoReturn:
    """Say how to resume a run, and exit."""
    command = shlex.join(["fedsim", "run", str(path / "workload.yaml"), "--out", str(path), "--resume"])
    err.print(f"stopped{why}; resume with: {command}", soft_wrap=True, highlight=False)
    raise typer.Exit(130)


def _conclude(evaluation: "pd.DataFrame", path: Path) -> None:
    """Print the scores and write the report."""
    from fedsim.cli.tables import evaluation_tables
    from fedsim.report.report import write_report  # imported late, so that training starts sooner

    if len(evaluation):
        for table in evaluation_tables(evaluation):
            print_whole(table, out)
    out.print(f"report: {write_report(path, trust=None)}", soft_wrap=True, highlight=False)


def plan(
    workload: WorkloadFile,
    overrides: Overrides = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Run directory to plan for; default runs/NAME.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to plan for; default: this machine.")] = None,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Also predict a round on a cluster of N nodes.", metavar="N"),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Cores of each; default as many as here.")
    ] = None,
    gbit: Annotated[
        float | None,
        typer.Option(min=1e-3, max=1e6, help="The link of each [Gbit/s]; default 10.", callback=a_number),
    ] = None,
) -> None:
    """Estimate the memory, disk, traffic and time of a run, after timing one client here; refuse what does not fit.

    With --nodes, predict the time and the efficiency of a round on a cluster, and what limits it; it may be larger than
    this machine, so nothing is refused then.
    """
    from fedsim.cli.plan_tables import busy_line, plan_tables
    from fedsim.engine.place.cores import cores_here
    from fedsim.engine.plan.advice import warnings
    from fedsim.engine.plan.fits import machine_at, plan_run, refuse
    from fedsim.engine.plan.scaling import Cluster
    from fedsim.workload.reading import load_workload
    from fedsim.workload.superseded import superseded

    if nodes is None and (cores or gbit):
        raise InputError(f"{'--cores' if cores else '--gbit'}: describes the cluster of --nodes N, which is missing")
    loaded = load_workload(workload, overrides or [])
    path = out_dir or free_folder(Path("runs") / loaded.name)
    with err.status("importing sites and timing a client"):
        made = plan_run(loaded, path, None if address is None else machine_at(loaded, path, address))
    for table in plan_tables(made):
        print_whole(table, out)
    for note in made.notes:
        out.print(note, soft_wrap=True, highlight=False, markup=False)
    busy = busy_line(made.times) if made.times and address is None else None
    for warning in [*superseded(loaded, overrides or []), *warnings(made), *([busy] if busy else [])]:
        log.warning(warning)
    if nodes is None or made.times is None:
        refuse(made)
    else:
        _predict(made, Cluster(nodes=nodes, cores=cores or math.floor(cores_here()), gbit=gbit or 10.0))


def _predict(made: "Plan", cluster: "Cluster") -> None:
    """Print what a round would take on a cluster."""
    from fedsim.cli.scaling_table import scaling_table
    from fedsim.engine.plan.rates import measure
    from fedsim.engine.plan.scaling import predict, round_of

    round_ = round_of(made)
    with err.status("measuring the driver and an adder"):
        rates = measure(int(round_.sums) // 8)
    print_whole(scaling_table(predict(round_, cluster, rates), rates), out)


def first_line(workload: "Workload") -> str:
    """The name of what runs, its sites, and how many clients train as one network; a warning says if none can."""
    from fedsim.algorithms.fusing import one_by_one

    sites, fuse = workload.federation.expanded_sites(), workload.training.fuse
    names = workload.client_names()
    some = tuple(names[: min(workload.training.drawn(len(names)), 2 * fuse)])
    alone = fuse == 1 or one_by_one(workload.settled().algorithm, some)
    return f"{workload.name}: {counted(len(sites), 'site')}{'' if alone else f', up to {fuse} clients as one network'}"


def _check_resume(out_dir: Path | None, overwrite: bool, trust: bool) -> None:
    """Refuse to resume without --out, with --overwrite, or with another user's code."""
    from fedsim.engine.record.run_directory import Run

    if out_dir is None:
        raise InputError("--resume: needs --out, the run directory to resume")
    if overwrite:
        raise InputError("--overwrite: replaces what --resume would continue; choose one")
    if is_run(out_dir):
        Run(out_dir, trust=trust or None).check_code()
