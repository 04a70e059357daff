"""The fedsim command: its groups of commands, and what all of them share."""

import logging
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, NoReturn

import typer
from rich.logging import RichHandler
from typer.core import TyperGroup
from typer.exceptions import TyperException

from fedsim.cli.checkpoints import checkpoints
from fedsim.cli.common import err
from fedsim.cli.data import data
from fedsim.cli.debug import debug
from fedsim.cli.doctor import doctor
from fedsim.cli.extend import list_, new
from fedsim.cli.init import init, schema
from fedsim.cli.jobs import jobs, submit
from fedsim.cli.output import lasting_output
from fedsim.cli.runs import evaluate, reconstruct, report, unseen
from fedsim.cli.simulate import plan, run
from fedsim.cli.study import compare, study
from fedsim.cli.watch import watch
from fedsim.core.errors import InputError, RunError, TracedError
from fedsim.core.files import trouble

log = logging.getLogger("fedsim")
PANELS = {
    "Simulate": ("init", "run", "plan", "watch", "evaluate", "report"),
    "Use and compare runs": ("compare", "study", "unseen", "reconstruct", "checkpoints"),
    "Data": ("data",),
    "Extend": ("list", "new"),
    "Clusters": ("submit", "jobs"),
    "When something is wrong": ("doctor", "debug", "schema"),
}
"""The commands grouped by purpose, in the order of --help."""


class _Grouped(TyperGroup):
    """The commands, grouped by purpose."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Every command, in the order of PANELS."""
        for panel, names in PANELS.items():
            for name in names:
                self.commands[name].rich_help_panel = panel  # type: ignore[attr-defined]
        known = [name for names in PANELS.values() for name in names]
        return [*known, *(name for name in super().list_commands(ctx) if name not in known)]


app = typer.Typer(
    cls=_Grouped, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Simulate federated MR image reconstruction, on a laptop or a Ray cluster.",
    epilog="Start with: fedsim init DIR",
)  # fmt: skip
app.add_typer(data, name="data")
app.add_typer(jobs, name="jobs")
_EXAMPLES: dict[Callable[..., None], str] = {
    init: "fedsim init try",
    run: "fedsim run workloads/quickstart.yaml --set training.rounds=5 --out runs/try",
    plan: "fedsim plan workloads/quickstart.yaml --set engine.clients_per_actor=auto",
    watch: "fedsim watch runs/quickstart --web",
    evaluate: "fedsim evaluate runs/try --split val --round last --save-images",
    report: "fedsim report runs/try",
    compare: "fedsim compare runs/fedavg runs/fedmri --reference fedmri --out comparison",
    study: "fedsim study workloads/compare-methods.yaml --set seeds=[1,2] --set set.training.rounds=5",
    unseen: "fedsim unseen runs/try --slices 0,4,16,all",
    reconstruct: "fedsim reconstruct runs/try --client North head.nii.gz --out reconstructed",
    checkpoints: "fedsim checkpoints runs/try",
    submit: "fedsim submit workloads/quickstart.yaml --cluster local --wait",
    list_: "fedsim list methods",
    new: "fedsim new method damped && pytest test_damped.py",
    doctor: "fedsim doctor",
    debug: "fedsim debug runs/try --client North --round 3",
    schema: "fedsim schema > workload.schema.json",
}
for command, example in _EXAMPLES.items():
    app.command(command.__name__.rstrip("_"), epilog=f"Example: {example}")(command)
app.command("replay", hidden=True)(debug)  # its old name


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fedsim {metadata.version('fedsim')}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; allowed anywhere on the line.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    log.setLevel(logging.DEBUG if debug else logging.INFO)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    handler = RichHandler(console=err, show_time=False, show_path=False)
    log.addHandler(handler)
    try:
        with lasting_output():
            _main()
    finally:
        log.removeHandler(handler)


def _main() -> NoReturn:
    arguments = sorted(sys.argv[1:], key=lambda argument: argument != "--debug")  # allowed anywhere on the line
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
        bug = f"{type(error).__name__}: {error}; this is a bug in fedsim; --debug shows where"
        _say((trouble(error) if isinstance(error, OSError) else "") or bug)
        sys.exit(1)


def _say(message: str) -> None:
    """Print one line on stderr, unless the message is empty."""
    if message:
        line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
        print(f"fedsim: {line}", file=sys.stderr)  # noqa: T201 - never wrapped
