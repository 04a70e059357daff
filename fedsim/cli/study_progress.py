"""The progress of a study in the terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from fedsim.cli.progress import columns
from fedsim.core.text import duration
from fedsim.study.outcome import Outcome
from fedsim.study.runner import Report
from fedsim.study.study import Point


@contextmanager
def study_progress(console: Console, name: str, total: int) -> Iterator[Report]:
    """Prints a line for each finished point, on a terminal with a bar below the lines."""
    bar = Progress(*columns(), console=console, disable=not console.is_interactive)
    task, since, done = bar.add_task(name, total=total, note=""), time.monotonic(), 0

    def report(point: Point, outcome: Outcome) -> None:
        nonlocal done
        done += 1
        bar.update(task, completed=done)
        left = duration((time.monotonic() - since) / done * (total - done))
        part = "validation" if point.part == "val" else point.part
        what = f"{part} PSNR {outcome.psnr:.2f} dB"
        if outcome.pruned:
            last = max(outcome.rungs)
            what = f"pruned after round {last}, {part} PSNR {outcome.rungs[last]:.2f} dB"
        if outcome.error:
            what = outcome.error if outcome.diverged else f"failed: {outcome.error}"
        if outcome.refused and point.candidate is not None:  # a warning has said why
            what = "refused"
        line = f"{name} {done}/{total}  {point.label}  {what}  {outcome.seconds:.0f} s  {left} left"
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    with bar:
        yield report
