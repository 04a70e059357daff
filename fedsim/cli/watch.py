"""fedsim watch: follow a run or a study in the terminal, from its folder alone."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.common import err, out


def watch(
    path: Annotated[Path, typer.Argument(help="Run directory, or a study's folder.", metavar="RUN|STUDY")],
    once: Annotated[bool, typer.Option("--once", help="Show the current state and exit.")] = False,
) -> None:
    """Follow a run or a study until it is done; Ctrl-C leaves it running. One line per round without a terminal."""
    from fedsim.cli.watching import follow, watched

    subject = watched(path)
    if once:
        subject.look()
        out.print(subject.view())
        return
    try:
        follow(subject, out)
    except KeyboardInterrupt:
        err.print("stopped watching; the run or study itself keeps running")
        raise typer.Exit(130) from None
