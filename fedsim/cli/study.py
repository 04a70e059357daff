"""The commands that run many workloads or compare many runs."""

import logging
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.common import (
    Address,
    Limit,
    OfStudy,
    Overwrite,
    Tags,
    err,
    limited,
    out,
    readable,
    replacing,
    stop_on_signal,
    tagged,
)
from fedsim.core.errors import RunError


def study(
    study_file: Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY", callback=readable)],
    overrides: OfStudy = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Study folder, resumed if it exists; default studies/NAME.")
    ] = None,
    overwrite: Overwrite = False,
    tags: Tags = None,
    address: Address = None,
    walltime: Limit = None,
    only: Annotated[
        str,
        typer.Option(
            "--only", metavar="PATTERN", help="Run a piece of the study now: regimes, or REGIME/METHOD; * is any text."
        ),
    ] = "*",
) -> None:
    """Run every point of a study, in parallel where each needs one core; the same command resumes it."""
    limit = limited(walltime)
    from fedsim.cli.study_progress import study_progress
    from fedsim.engine.tracking.tracking import tracked
    from fedsim.report.conclude import conclude
    from fedsim.study.runner import run_study
    from fedsim.study.study import load_study

    plan = load_study(study_file, tagged(overrides, tags, "set.tags"))
    path = out_dir or Path("studies") / plan.study.name
    out.print(f"{plan.study.name}: {plan.describe()}, into {path}", soft_wrap=True)
    _leave_notes_to_points()
    with tracked(plan.trackers, path) as told:
        with replacing(path, overwrite) as begun, stop_on_signal() as stopped:

            def stop() -> bool:
                told.begun = True
                return stopped()

            result = run_study(plan, path, partial(study_progress, out), begun(stop), address, limit, only)
            why = "" if stopped() else limit.why or ": another round would end too late for --walltime"
        if result.stopped:
            told.end("stopped")
            where = [*(["--address", address] if address else []), *(["--only", only] if only != "*" else [])]
            command = shlex.join(["fedsim", "study", str(path / "study.yaml"), "--out", str(path), *where])
            err.print(f"stopped{why}; resume with: {command}", soft_wrap=True, highlight=False)
            raise typer.Exit(130)
        conclude(path, out, trust=None)
        told.end("failed" if result.failed else "finished")
    if result.failed:
        first, *others = result.failed
        named = f"; also {', '.join(line.partition(':')[0] for line in others[:10])}" if others else ""
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        raise RunError(f"{len(result.failed)} failed, the rest are done; {first}{named}{more}")


def _leave_notes_to_points() -> None:
    """Drop notes on a point's data, which are in its log.txt; here they would repeat with every point."""
    log = logging.getLogger("fedsim")
    if log.level > logging.DEBUG:
        for handler in log.handlers:
            handler.setLevel(logging.WARNING)


def compare(
    run_dirs: Annotated[list[Path], typer.Argument(help="Run directories.", metavar="RUN")],
    reference: Annotated[
        str | None, typer.Option(help="Method to compare the others with; default fedmri, or the first run's.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for the tables, as CSV, Markdown and LaTeX.")
    ] = None,
) -> None:
    """Compare the test scores of runs, overall and site by site, paired by seed; refuse incomparable runs."""
    from fedsim.report.compared import compare_runs

    compare_runs(run_dirs, reference, out_dir, out)
