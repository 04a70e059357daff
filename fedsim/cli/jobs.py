"""fedsim submit and fedsim jobs: sending runs and studies to a cluster, and following them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.common import Overrides, Tags, err, out, readable, tagged
from fedsim.core.errors import InputError, RunError

if TYPE_CHECKING:
    from fedsim.jobs.target import Target

jobs = typer.Typer(no_args_is_help=True, help="List, follow, stop and fetch submitted jobs.", rich_markup_mode="rich")
JobId = Annotated[str, typer.Argument(help="Id of a job, or an unambiguous prefix of it.", metavar="ID")]


def submit(
    file: Annotated[
        Path, typer.Argument(help="Workload or study file (YAML).", metavar="WORKLOAD|STUDY", callback=readable)
    ],
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|URL",
            help="Required: name of a file in clusters/ without its suffix, path of such a file, or http://HOST:PORT.",
        ),
    ] = None,
    overrides: Overrides = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run or study; default runs/NAME or studies/NAME.")
    ] = None,
    tags: Tags = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job's output, and exit with its result.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent without sending it.")] = False,
    per_point: Annotated[
        bool,
        typer.Option("--per-point", help="Submit one job per unfinished point of a study."),
    ] = False,
    array: Annotated[
        bool, typer.Option("--array", help="On SLURM: submit one job array, with a task per unfinished point.")
    ] = False,
    at_once: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, metavar="N", help="Tasks of --array that may run at a time.")
    ] = None,
) -> None:
    """Run a workload or a study on a cluster; submitting it again resumes it, and never runs it twice."""
    from fedsim.core.yaml import read_yaml
    from fedsim.jobs.targets import find_target

    target = find_target(cluster)
    settings = tagged(overrides, tags, "set.tags" if tags and "workload" in read_yaml(file) else "tags")
    _check_points(target, per_point, array, at_once)
    from fedsim.jobs.sending import check, submit_all
    from fedsim.jobs.submission import prepare, prepare_array, prepare_points

    if array:
        made, begin = prepare_array(file, settings, out_dir, at_once)
    elif per_point:
        made, begin = prepare_points(file, settings, out_dir)
    else:
        made, begin = [prepare(file, settings, out_dir, target.out)], lambda: None
    if dry_run:
        for job in made:
            check(target, job, there=False)
        typer.echo("".join(target.render(job.submission) for job in made), nl=False)
        return
    for submission in [job.submission for job in submit_all(target, made, _say, begin)]:
        if wait:
            _follow(submission.id)
        else:
            _say(f"follow it with: fedsim jobs logs {submission.id} --follow")
    if (per_point or array) and not made:
        _say("every point has finished already")
    if per_point or array:
        _say(f"when all are done, fedsim study {file} with the same --set and --out makes tables and report")


def _check_points(target: "Target", per_point: bool, array: bool, at_once: int | None) -> None:
    """Refuse options that a cluster does not know, or that do not go together."""
    from fedsim.jobs.slurm import Slurm

    if per_point and target.out is not None:
        raise InputError(f"--per-point: {target.name} keeps runs in {target.out}, which this machine cannot collect")
    if array and per_point:
        raise InputError("--array: submits the points as tasks of one job, --per-point as jobs; choose one")
    if array and not isinstance(target, Slurm):
        raise InputError(f"--array: {target.name} is not SLURM, which has job arrays; use --per-point, or leave it out")
    if at_once is not None and not array:
        raise InputError("--at-once: is for the tasks of --array, which is missing")


@jobs.command("list")
def list_jobs() -> None:
    """List the jobs submitted from this machine, with their states."""
    from fedsim.jobs.receipts import receipts, state_of

    gone: set[str] = set()
    rows = [("job", "cluster", "state", "submitted", "folder")]
    for receipt in receipts():
        rows.append((receipt.id, receipt.shown, state_of(receipt, gone), receipt.submitted, str(receipt.out)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # not wrapped, however narrow the terminal is: ids and folders are to be copied
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@jobs.command()
def logs(
    job_id: JobId, follow: Annotated[bool, typer.Option("--follow", help="Keep following until the job ends.")] = False
) -> None:
    """Show what a job has printed."""
    from fedsim.jobs.receipts import log_of, receipt_of

    for piece in log_of(receipt_of(job_id), follow):
        typer.echo(piece, nl=False)


@jobs.command()
def wait(job_id: JobId) -> None:
    """Wait for a job to end; exit status 1 if it failed."""
    _conclude(job_id)


@jobs.command()
def stop(job_id: JobId) -> None:
    """Stop a job; submitted again, it resumes from its last checkpoint."""
    from fedsim.jobs.receipts import receipt_of, status_of
    from fedsim.jobs.target import RUNS
    from fedsim.jobs.targets import find_target

    receipt = receipt_of(job_id)
    status = status_of(receipt)
    if status.state in RUNS:
        _say(f"stopping {receipt.id}, which may finish its round first")
        find_target(receipt.cluster).stop(receipt.id)
        status = status_of(receipt)
    _say(f"{receipt.id}: {status.state}")


@jobs.command()
def fetch(
    job_id: JobId,
    to: Annotated[Path | None, typer.Option("--to", help="New folder; default: the job's folder name.")] = None,
) -> None:
    """Copy a job's run directory, or a study's folder, to this machine."""
    from fedsim.jobs.receipts import fetch, receipt_of

    receipt = receipt_of(job_id)
    folder = to or Path(receipt.out.name)
    if folder.absolute() == receipt.out:
        raise InputError(f"--to {folder}: is the job's own folder; name another one")
    fetch(receipt, folder)
    out.print(f"{receipt.id}: {folder}", soft_wrap=True, highlight=False)


def _follow(job_id: str) -> None:
    """Show a job's output, and exit with its result."""
    try:
        logs(job_id, follow=True)
        _conclude(job_id)
    except KeyboardInterrupt:
        _say(f"\nthe job keeps running; follow it with: fedsim jobs logs {job_id} --follow")
        raise typer.Exit(130) from None


def _conclude(job_id: str) -> None:
    from fedsim.jobs.receipts import receipt_of, wait_for

    receipt = receipt_of(job_id)
    status = wait_for(receipt)
    if status.state != "succeeded":
        raise RunError(f"{receipt.id}: {status.state}" + (f": {status.reason}" if status.reason else ""))
    _say(f"{receipt.id}: succeeded, in {receipt.out}")


def _say(line: str) -> None:
    err.print(line, soft_wrap=True, highlight=False, markup=False)
