"""One point of a study, from its first round to its scores: in this process or a separate one."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fedsim.analysis.scores import mean_over_sites
from fedsim.core.errors import DivergedError, InputError, RunError
from fedsim.core.own import find_own
from fedsim.data.split import Part
from fedsim.engine.host.messages import Row
from fedsim.engine.simulation import Simulation
from fedsim.engine.tracking.tracking import tracked
from fedsim.study.bare_loop import Floor
from fedsim.study.results import DIVERGED
from fedsim.workload.reading import read_content
from fedsim.workload.schema import Workload

log = logging.getLogger("fedsim")

Stop = Callable[[], bool]
"""Says whether to stop after the current rounds."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a point ended."""

    error: str = ""
    """Error in one line; empty if it did not fail."""
    stopped: bool = False
    """Whether it was stopped before its last round."""
    psnr: float = math.nan
    """PSNR [dB] of its best round, mean over sites; NaN if it has none."""
    seconds: float = 0.0
    """Time that the point took [s]."""
    warnings: tuple[str, ...] = ()
    """Warnings of a point in another process; those of a point in this process are logged."""


def run_point(
    workload: Workload,
    path: Path,
    part: Part,
    stop: Stop,
    address: str | None = None,
    *,
    study: Path | None = None,
    timed: bool = False,
) -> Outcome:
    """Train a point, or resume it, and evaluate its best round on a part; a failure is returned as an outcome.

    Trackers are told that it belongs to `study`, a folder. With `timed`, a round of the bare loop follows every round.
    """
    since = time.monotonic()
    between: Callable[[Row], None] = Floor(workload, path).take_turn if timed else lambda _: None
    try:
        with (
            tracked(workload.trackers, path, study=study) as told,
            Simulation(workload, path, resume=True, address=address, observer=told) as simulation,
        ):
            if not simulation.run(stop, between):
                return Outcome(stopped=True)
            frame = simulation.evaluate(part)
    except Exception as error:  # a study continues after any failure of a point
        known = DIVERGED if isinstance(error, DivergedError) else ""
        kind = known if isinstance(error, InputError | RunError) else f"{type(error).__name__}: "
        return Outcome(error=" ".join(f"{kind}{error}".split()))
    if not len(frame):
        return Outcome(error=f"no client has data in the {part} split")
    return Outcome(psnr=mean_over_sites(frame, "psnr"), seconds=time.monotonic() - since)


def run_until_flag(text: str, study: Path, path: Path, part: Part, flag: Path) -> Outcome:
    """A point in a separate process; its workload is passed as text: a user's own method is a file of the study."""
    if flag.exists():
        return Outcome(stopped=True)
    content = json.loads(text)
    workload = read_content(content, f"{path}: ", code=True, folders=(study,))
    for name in workload.federation.own_datasets():
        find_own(name, (study,))
    with _collected_warnings() as warnings:
        outcome = run_point(workload, path, part, flag.exists, study=study)
    return replace(outcome, warnings=tuple(warnings))


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collects fedsim's warnings meanwhile; the log of a task is not shown."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield texts
    finally:
        log.removeHandler(handler)
