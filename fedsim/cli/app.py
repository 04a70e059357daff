"""The fedsim command: thin commands over the library."""

import json
import logging
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.logging import RichHandler
from typer.core import TyperGroup
from typer.exceptions import TyperException

from fedsim.cli.common import (
    Address,
    Overrides,
    Overwrite,
    Round,
    RunFolder,
    Tags,
    Trust,
    WorkloadFile,
    err,
    free_folder,
    out,
    replacing,
    stop_on_signal,
    tagged,
)
from fedsim.cli.data import data
from fedsim.cli.debug import debug
from fedsim.cli.init import init
from fedsim.cli.jobs import jobs, submit
from fedsim.cli.output import lasting_output
from fedsim.cli.study import compare, study
from fedsim.cli.watch import watch
from fedsim.core.errors import InputError, RunError, TracedError

if TYPE_CHECKING:
    from fedsim.data.split import Part
    from fedsim.engine.record.run_directory import Run

log = logging.getLogger("fedsim")
PANELS = {
    "Simulate": ("init", "run", "plan", "watch", "evaluate", "report"),
    "Use and compare runs": ("compare", "study", "unseen", "reconstruct"),
    "Data": ("data",),
    "Clusters": ("submit", "jobs"),
    "When something is wrong": ("doctor", "debug", "schema"),
}
"""The commands by what they are for, in the order of --help."""


class _Grouped(TyperGroup):
    """The commands, by what they are for."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Every command, in the order of PANELS."""
        for panel, names in PANELS.items():
            for name in names:
                self.commands[name].rich_help_panel = panel  # type: ignore[attr-defined]
        known = [name for names in PANELS.values() for name in names]
        return [*known, *(name for name in super().list_commands(ctx) if name not in known)]


app = typer.Typer(
    cls=_Grouped, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Simulate federated MR image reconstruction, on a laptop or a Ray cluster.",
    epilog="Start with: fedsim init DIR",
)  # fmt: skip
app.add_typer(data, name="data")
app.add_typer(jobs, name="jobs")
app.command(epilog="Example: fedsim init try")(init)
app.command(epilog="Example: fedsim submit workloads/quickstart.yaml --cluster local --wait")(submit)
app.command(epilog="Example: fedsim debug runs/try --client North --round 3")(debug)
app.command("replay", hidden=True)(debug)  # its old name
app.command(epilog="Example: fedsim watch runs/quickstart")(watch)


app.command(
    epilog="Example: fedsim study workloads/compare-methods.yaml --set seeds=[1,2] --set set.training.rounds=5"
)(study)
app.command(epilog="Example: fedsim compare runs/fedavg runs/fedmri --reference fedmri --out comparison")(compare)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fedsim {metadata.version('fedsim')}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    log.setLevel(logging.DEBUG if debug else logging.INFO)


@app.command(epilog="Example: fedsim run workloads/quickstart.yaml --set training.rounds=5 --out runs/try")
def run(
    workload: WorkloadFile,
    overrides: Overrides = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/NAME, numbered.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    overwrite: Overwrite = False,
    tags: Tags = None,
    trust: Trust = False,
    address: Address = None,
) -> None:
    """Train a workload, test its best round, and write a report."""
    from fedsim.cli.display import evaluation_table, progress_of
    from fedsim.engine.record.claim import claim_numbered
    from fedsim.engine.simulation import Simulation
    from fedsim.workload.reading import load_workload
    from fedsim.workload.superseded import superseded

    if resume:
        _check_resume(out_dir, overwrite, trust)
    loaded = load_workload(workload, tagged(overrides, tags))
    default = Path("runs") / loaded.name
    claimed = out_dir or (default if overwrite else claim_numbered(default))
    path = claimed if isinstance(claimed, Path) else claimed.folder
    out.print(f"{loaded.name}: {len(loaded.federation.expanded_sites())} sites, into {path}", soft_wrap=True)
    with (
        replacing(path, overwrite) as begun,
        progress_of(loaded, out) as observer,
        Simulation(loaded, claimed, resume=resume, address=address, observer=observer) as simulation,
    ):
        for line in superseded(loaded, overrides or []) if not resume else ():
            log.warning(line)
        with stop_on_signal() as stopped:
            done = simulation.run(begun(stopped))
        if done:
            out.print("testing the best round")
        frame = simulation.evaluate() if done else None
    if frame is None:
        command = shlex.join(["fedsim", "run", str(path / "workload.yaml"), "--out", str(path), "--resume"])
        err.print(f"stopped; go on with: {command}", soft_wrap=True, highlight=False)
        raise typer.Exit(130)
    if len(frame):
        out.print(evaluation_table(frame))
    from fedsim.report.report import write_report  # matplotlib is late, so that the first round is not

    out.print(f"report: {write_report(path, trust=None)}", soft_wrap=True, highlight=False)


@app.command(epilog="Example: fedsim plan workloads/quickstart.yaml --set engine.clients_per_actor=auto")
def plan(
    workload: WorkloadFile,
    overrides: Overrides = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Where the run would go; default runs/NAME.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to plan for; default: this machine.")] = None,
) -> None:
    """Say what a run will need, send and take, after timing one client here; refuse what cannot fit."""
    from fedsim.cli.display import busy_line, plan_tables
    from fedsim.engine.plan.fits import machine_at, plan_run, refuse, warnings
    from fedsim.workload.reading import load_workload
    from fedsim.workload.superseded import superseded

    loaded = load_workload(workload, overrides or [])
    path = out_dir or free_folder(Path("runs") / loaded.name)
    with err.status("importing sites and timing a client"):
        made = plan_run(loaded, path, None if address is None else machine_at(loaded, path, address))
    for table in plan_tables(made):
        out.print(table)
    for note in made.notes:
        out.print(note, soft_wrap=True, highlight=False, markup=False)
    busy = busy_line(made.times) if made.times and address is None else None
    for warning in [*superseded(loaded, overrides or []), *warnings(made), *([busy] if busy else [])]:
        log.warning(warning)
    refuse(made)


@app.command(epilog="Example: fedsim evaluate runs/try --split val --round last --save-images")
def evaluate(
    run_dir: RunFolder,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Part of the data.")] = "test",
    which: Round = "best",
    save_images: Annotated[bool, typer.Option("--save-images", help="Write images/<client>/<volume>.h5.")] = False,
    cross: Annotated[
        bool, typer.Option("--cross", help="Score every client's model on every site's data, into cross.parquet.")
    ] = False,
    overrides: Overrides = None,
    trust: Trust = False,
    address: Address = None,
) -> None:
    """Score every client of a run, volume by volume, into evaluation.parquet."""
    from fedsim.engine.record.claim import Claim

    if cross:
        if save_images or address:
            raise InputError("--cross: runs in this process and saves no images; leave out --save-images and --address")
        opened = _opened(run_dir, overrides, trust)
        with Claim(run_dir):
            _evaluate_across(opened, split, which)
        return
    from fedsim.cli.display import evaluation_table
    from fedsim.engine.record.run_directory import Run
    from fedsim.engine.simulation import Simulation

    loaded = Run(run_dir, overrides or [], trust=trust or None).runnable
    with Simulation(loaded, run_dir, resume=True, address=address) as simulation:
        frame = simulation.evaluate(split, which, save_images)
    if not len(frame):
        raise InputError(f"{run_dir}: no client has data in the {split} split")
    out.print(evaluation_table(frame))
    if save_images:
        from fedsim.analysis.reconstruct import beside_fastmri

        out.print(f"images: {run_dir / 'images'}", soft_wrap=True, highlight=False)
        if note := beside_fastmri(loaded):
            out.print(note, soft_wrap=True, highlight=False)


@app.command(epilog="Example: fedsim unseen runs/try --slices 0,4,16,all")
def unseen(
    run_dir: RunFolder,
    slices: Annotated[
        str, typer.Option(help="How many slices of the site to learn from: numbers or all, divided by commas.")
    ] = "0,4,16",
    which: Round = "best",
    out_file: Annotated[Path | None, typer.Option("--out", help="Table; default RUN/unseen.parquet.")] = None,
    overrides: Overrides = None,
    trust: Trust = False,
) -> None:
    """Tell how a run serves the sites that took no part: as it is, and after learning from a few of their slices."""
    from fedsim.analysis.unseen import line_of, parse_budgets, unseen_table
    from fedsim.analysis.unseen import unseen as serve
    from fedsim.engine.record.claim import Claim
    from fedsim.engine.record.ledger import write_table

    budgets, opened = parse_budgets(slices), _opened(run_dir, overrides, trust)
    path = out_file or run_dir / "unseen.parquet"
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--out {path}: must be a file in a folder that exists")
    with Claim(run_dir):
        frame = serve(
            opened, budgets, which, tell=lambda served: out.print(line_of(served), soft_wrap=True, highlight=False)
        )
        write_table(path, frame)
    out.print(unseen_table(frame))
    out.print(f"table: {path}", soft_wrap=True, highlight=False)


@app.command(epilog="Example: fedsim reconstruct runs/try --client North head.nii.gz --out reconstructed")
def reconstruct(
    run_dir: RunFolder,
    file: Annotated[Path, typer.Argument(help="File or folder with images or k-space.", metavar="FILE")],
    client: Annotated[str, typer.Option(help="Whose model to use.")],
    which: Round = "best",
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for <volume>.h5.")] = Path("reconstructed"),
    trust: Trust = False,
) -> None:
    """Reconstruct a file with a client's model, and the client's mask, or the file's own if it is undersampled."""
    from fedsim.analysis.reconstruct import reconstruct_file

    for path, said in reconstruct_file(_opened(run_dir, None, trust), client, file, which, out_dir):
        out.print(f"{path}: {said}", soft_wrap=True, highlight=False)


@app.command()
def report(
    run_dir: Annotated[
        Path, typer.Argument(help="Run directory, a study's folder, or a folder of them.", metavar="RUN|STUDY|FOLDER")
    ],
    trust: Trust = False,
) -> None:
    """Draw a run's figures and write its report.html, a study's tables and figures, or a page over a folder of runs.

    Runs no code of theirs, unless it is trusted.
    """
    from fedsim.report.conclude import conclude
    from fedsim.report.report import write_report

    if (run_dir / "study.yaml").is_file():
        conclude(run_dir, out, trust=trust)
        return
    if run_dir.is_dir() and not (run_dir / "workload.yaml").is_file():
        from fedsim.report.runs_page import write_runs_page

        out.print(f"page: {write_runs_page(run_dir)}", soft_wrap=True, highlight=False)
        return
    out.print(f"report: {write_report(run_dir, trust=trust)}", soft_wrap=True, highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of workload files, for editors."""
    from fedsim.workload.schema import Workload

    print(json.dumps(Workload.model_json_schema(), indent=2))  # noqa: T201 - meant for a pipe


@app.command()
def doctor() -> None:
    """Check that this machine can run fedsim: versions, cores, memory, disk, and Ray itself."""
    from fedsim.cli.doctor import check

    table, healthy = check()
    out.print(table)
    if not healthy:
        raise RunError("something above needs attention")


def _check_resume(out_dir: Path | None, overwrite: bool, trust: bool) -> None:
    """Refuse to go on with nothing, with what is to be replaced, or with another user's code."""
    from fedsim.engine.record.run_directory import Run

    if out_dir is None:
        raise InputError("--resume: needs --out, the run directory to go on with")
    if overwrite:
        raise InputError("--overwrite: replaces what --resume would go on with; choose one")
    if (out_dir / "workload.yaml").is_file():
        Run(out_dir, trust=trust or None).check_code()


def _opened(run_dir: Path, overrides: list[str] | None, trust: bool) -> "Run":
    """A run to look at, with overrides of what a resumed run may change."""
    from fedsim.engine.record.resuming import began_with, check_same
    from fedsim.engine.record.run_directory import Run

    opened = Run(run_dir, overrides or [], trust=trust or None)
    check_same(began_with(run_dir), opened.workload.settled())
    return opened


def _evaluate_across(opened: "Run", split: "Part", which: str) -> None:
    from fedsim.analysis.cross_site import cross_evaluate
    from fedsim.report.cross_view import cross_table, write_cross

    frame = cross_evaluate(opened, which, split)
    picture = write_cross(opened, frame)
    out.print(cross_table(frame))
    out.print(f"table: {opened.path / 'cross.parquet'}\npicture: {picture}", soft_wrap=True, highlight=False)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    with lasting_output():
        _main()


def _main() -> NoReturn:
    log.addHandler(RichHandler(console=err, show_time=False, show_path=False))
    arguments = sorted(sys.argv[1:], key=lambda argument: argument != "--debug")  # it may stand anywhere
    try:
        sys.exit(app(arguments, prog_name="fedsim", standalone_mode=False) or 0)
    except (InputError, RunError, TyperException) as error:
        if "--debug" in arguments:
            raise
        if isinstance(error, TracedError) and error.trace:
            print(error.trace, file=sys.stderr)  # noqa: T201 - as Python would show it
        _say(error.format_message() if isinstance(error, TyperException) else str(error))
        sys.exit(1 if isinstance(error, RunError) else 2)
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        sys.exit(130)
    except Exception as error:
        if "--debug" in arguments:
            raise
        _say(f"{type(error).__name__}: {error}; this is a fault in fedsim, --debug shows where")
        sys.exit(1)


def _say(message: str) -> None:
    """One line on stderr, if there is anything to say."""
    if message:
        line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
        print(f"fedsim: {line}", file=sys.stderr)  # noqa: T201 - never wrapped
