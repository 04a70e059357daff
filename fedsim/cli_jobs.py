"""fedsim submit and fedsim jobs: giving runs and studies to a cluster, and asking after them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli_common import Overrides, Tags, err, out, tagged
from fedsim.errors import InputError, RunError

if TYPE_CHECKING:
    from fedsim.jobs.receipts import Receipt
    from fedsim.jobs.target import Submission, Target

jobs = typer.Typer(no_args_is_help=True, help="Look after submitted jobs.", rich_markup_mode="rich")
JobId = Annotated[str, typer.Argument(help="Id of a job, or a beginning that no other has.", metavar="ID")]


def submit(
    file: Annotated[Path, typer.Argument(help="Workload or study file (YAML).", metavar="WORKLOAD|STUDY")],
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|URL", help="A file of clusters/ by its name, any such file, or http://HOST:PORT."
        ),
    ] = None,
    overrides: Overrides = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run or study; default runs/NAME or studies/NAME.")
    ] = None,
    tags: Tags = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show what the job prints, and end as it ends.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")] = False,
    per_point: Annotated[
        bool, typer.Option("--per-point", help="A job for each point of a study that is left, for a queue.")
    ] = False,
) -> None:
    """Run a workload or a study on a cluster; submitting the same again goes on with it, and never runs it twice."""
    from fedsim.jobs.local import Local
    from fedsim.jobs.submission import prepare, prepare_points
    from fedsim.jobs.targets import find_target
    from fedsim.workload import read_yaml

    target = find_target(cluster)
    settings = tagged(overrides, tags, "set.tags" if tags and "workload" in read_yaml(file) else "tags")
    if per_point and target.out is not None:
        raise InputError(f"--per-point: {target.name} keeps runs in {target.out}, which this machine cannot collect")
    if per_point:
        made = prepare_points(file, settings, out_dir, begin=not dry_run)
    else:
        made = [prepare(file, settings, out_dir, target.out)]
    if dry_run:
        typer.echo("".join(target.render(job.submission) for job in made), nl=False)
        return
    if isinstance(target, Local):
        target.bring_up(_say)
    from fedsim.jobs.sending import send

    for submission in [job.submission for job in made if send(target, job, _say)]:
        if wait:
            _follow(target, submission)
        else:
            _say(f"look at it with: fedsim jobs logs {submission.id} --follow")
    if per_point:
        _say(f"when all are done, fedsim study {file} with the same --set and --out makes tables and report")


@jobs.command("list")
def list_jobs() -> None:
    """List what was submitted from here, and how it does."""
    from fedsim.jobs.receipts import receipts, state_of

    gone: set[str] = set()
    rows = [("job", "cluster", "state", "submitted", "folder")]
    for receipt in receipts():
        rows.append((receipt.id, receipt.shown, state_of(receipt, gone), receipt.submitted, str(receipt.out)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # whole, however narrow the terminal is: ids and folders are for copying
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@jobs.command()
def logs(
    job_id: JobId, follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False
) -> None:
    """Show what a job has printed."""
    receipt, target = _find(job_id)
    for piece in target.logs(receipt.id, follow):
        typer.echo(piece, nl=False)


@jobs.command()
def wait(job_id: JobId) -> None:
    """Wait until a job has ended; exit status 1 if it failed."""
    receipt, target = _find(job_id)
    _conclude(target, receipt.id, receipt.out)


@jobs.command()
def stop(job_id: JobId) -> None:
    """End a job; submitted again, it goes on from its last checkpoint."""
    from fedsim.jobs.target import RUNS

    receipt, target = _find(job_id)
    status = target.status(receipt.id)
    if status.state in RUNS:
        _say(f"stopping {receipt.id}, which may finish its round first")
        target.stop(receipt.id)
        status = target.status(receipt.id)
    _say(f"{receipt.id}: {status.state}")


@jobs.command()
def fetch(
    job_id: JobId,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to make; default the folder's own name.")] = None,
) -> None:
    """Copy a job's run directory, or a study's folder, to here."""
    from fedsim.jobs.target import RUNS

    receipt, target = _find(job_id)
    folder = to or Path(receipt.out.name)
    if folder.absolute() == receipt.out:
        raise InputError(f"--to {folder}: is the job's own folder; name another one")
    if target.status(receipt.id).state in RUNS:
        raise InputError(f"{receipt.id}: is running; fetch it when it has ended (fedsim jobs wait), or stop it")
    target.fetch(receipt.out, folder)
    out.print(f"{receipt.id}: {folder}", soft_wrap=True, highlight=False)


def _follow(target: "Target", submission: "Submission") -> None:
    """Show what a job prints, and end as it ends."""
    try:
        for piece in target.logs(submission.id, follow=True):
            typer.echo(piece, nl=False)
        _conclude(target, submission.id, submission.out)
    except KeyboardInterrupt:
        _say(f"\nthe job goes on; look at it with: fedsim jobs logs {submission.id} --follow")
        raise typer.Exit(130) from None


def _conclude(target: "Target", job_id: str, folder: Path) -> None:
    status = target.wait(job_id)
    if status.state != "succeeded":
        raise RunError(f"{job_id}: {status.state}" + (f": {status.reason}" if status.reason else ""))
    _say(f"{job_id}: succeeded, in {folder}")


def _find(job_id: str) -> "tuple[Receipt, Target]":
    from fedsim.jobs.receipts import receipt_of
    from fedsim.jobs.targets import find_target

    receipt = receipt_of(job_id)
    return receipt, find_target(receipt.cluster)


def _say(line: str) -> None:
    err.print(line, soft_wrap=True, highlight=False, markup=False)
