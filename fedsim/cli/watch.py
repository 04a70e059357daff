"""fedsim watch: follow a run or a study in the terminal or in a browser, from its folder alone."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.common import err, out
from fedsim.core.errors import InputError


def watch(
    path: Annotated[
        Path,
        typer.Argument(
            help="Run directory, or a study's folder; with --web also a folder of them.", metavar="RUN|STUDY|FOLDER"
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Show the current state and exit.")] = False,
    web: Annotated[
        bool,
        typer.Option(
            "--web",
            help="Serve a live page for a browser, on this machine only, and print its address, until Ctrl-C.",
        ),
    ] = False,
) -> None:
    """Follow a run or a study until it is done; Ctrl-C leaves it running. One line per round without a terminal.

    With --web, a page shows rounds, clients, quality by site, images, failures and a study's points, also of a finished
    run or a copied folder. On a login node, open it through the ssh -L that is printed. Keep its address, which holds
    a token, to yourself.
    """
    if not path.exists():
        raise InputError(f"{path}: no such folder; name the folder (--out) of a run or a study that has started")
    if web:
        if once:
            raise InputError("--once: is for the terminal; leave it out, or leave out --web")
        from fedsim.cli.live.serving import serve

        serve(path, out)
        return
    from fedsim.cli.watching import follow, watched

    subject = watched(path)
    if once:
        subject.look()
        subject.look()  # what could not be read is tried again, and then said
        out.print(subject.view())
        return
    try:
        follow(subject, out)
    except KeyboardInterrupt:
        err.print("stopped watching; the run or study itself keeps running")
        raise typer.Exit(130) from None
