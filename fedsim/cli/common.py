"""What the commands share: consoles, arguments, run folders, and how a run is interrupted."""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console

if TYPE_CHECKING:
    from fedsim.engine.plan.walltime import Walltime


def _terminal(stream: TextIO | None) -> bool:
    """Whether lines can be drawn over: colours may be forced (FORCE_COLOR, as in notebooks), a terminal cannot."""
    return stream is not None and stream.isatty()


out = Console(force_interactive=_terminal(sys.stdout))
err = Console(stderr=True, force_interactive=_terminal(sys.stderr))


def readable(path: Path) -> Path:
    """Refuse a missing file at once, before torch is loaded."""
    from fedsim.core.yaml import read_yaml

    if not os.path.isfile(path):  # noqa: PTH113 - False for a name that is too long, too
        read_yaml(path)
    return path


def a_number(value: float | None) -> float | None:
    """Refuse NaN, which lies within any limits.

    Raises:
        typer.BadParameter: it is NaN.
    """
    if value is not None and math.isnan(value):
        raise typer.BadParameter("must be a number, not NaN")
    return value


WorkloadFile = Annotated[Path, typer.Argument(help="Workload file (YAML).", metavar="WORKLOAD", callback=readable)]
RunFolder = Annotated[Path, typer.Argument(help="Run directory.", metavar="RUN")]


def _set(example: str) -> Any:  # noqa: ANN401 - as typer declares its options
    return typer.Option(
        "--set", metavar="KEY=VALUE", help=f"Override a key, e.g. {example}; values are YAML. Repeatable."
    )


Overrides = Annotated[list[str] | None, _set("training.rounds=5")]
OfData = Annotated[list[str] | None, _set("federation.matrix=[64,64]")]
OfStudy = Annotated[list[str] | None, _set("seeds=[1,2] or set.training.rounds=5")]
OfRun = Annotated[list[str] | None, _set("federation.root=/data or engine.device=cpu")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TEXT", help="Label of the run; replaces the workload's tags. Repeatable."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run or study that --out (or the default folder) holds.")
]
Limit = Annotated[
    str | None,
    typer.Option(
        "--walltime", metavar="H:MM:SS", help="Stop in time, with a checkpoint: begin no round that might end later."
    ),
]
Stop = Callable[[], bool]
Round = Annotated[str, typer.Option("--round", help="best (by validation PSNR), last, or a number.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the Python code stored with the run even if another user owns it.")
]
Address = Annotated[str | None, typer.Option(help="Ray cluster to run on; default: start Ray on this machine.")]


def tagged(overrides: list[str] | None, tags: list[str] | None, key: str = "tags") -> list[str]:
    """The overrides with those of `--tag`."""
    return [*(overrides or []), *([f"{key}={json.dumps(tags)}"] if tags else [])]


def limited(walltime: str | None) -> "Walltime":
    """The time that the command may take, which begins here."""
    from fedsim.engine.plan.walltime import Walltime

    return Walltime.of(walltime)


def free_folder(path: Path) -> Path:
    """`path`, or `path-2`, `path-3`, ... if it exists."""
    number = 1
    while (found := path if number == 1 else path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return found


@contextmanager
def replacing(folder: Path, overwrite: bool) -> Iterator[Callable[[Stop], Stop]]:
    """With `--overwrite`, set the old `folder` aside; yields a wrapper of `stop` that deletes it when first called."""
    if not overwrite:
        yield lambda stopped: stopped
        return
    from fedsim.engine.record.overwrite import overwriting

    with overwriting(folder) as drop:

        def begun(stopped: Stop) -> Stop:
            def stop() -> bool:
                drop()
                return stopped()

            return stop

        yield begun


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGINT or SIGTERM arrived; the first lets the round finish, a second interrupts."""
    stops: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if stops:
            raise KeyboardInterrupt
        stops.append(number)
        err.print("\nstopping after this round, with a checkpoint; interrupt again to stop at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(stops)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
