"""One point of a study, from its first round to its scores: in this process or a separate one."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fedsim.analysis.scores import mean_over_sites
from fedsim.core.errors import DivergedError, InputError, RefusedError, RunError
from fedsim.core.own import find_own
from fedsim.data.split import Part
from fedsim.engine.host.messages import Row
from fedsim.engine.plan.walltime import Walltime
from fedsim.engine.simulation import Simulation
from fedsim.engine.tracking.tracking import tracked
from fedsim.study.bare_loop import Floor
from fedsim.study.outcome import DIVERGED, REFUSED, Outcome
from fedsim.study.pruning import Judge
from fedsim.workload.reading import read_content
from fedsim.workload.schema import Workload

log = logging.getLogger("fedsim")

Stop = Callable[[], bool]
"""Says whether to stop after the current rounds."""


def run_point(
    workload: Workload,
    path: Path,
    part: Part,
    stop: Stop,
    *,
    judge: Judge | None = None,
    address: str | None = None,
    timed: bool = False,
    walltime: Walltime | None = None,
) -> Outcome:
    """Train a point, or resume it, and evaluate its best round on a part; a failure is returned as an outcome.

    A judge may prune it, and a walltime stop it. With `timed`, a round of the bare loop follows every round.
    """
    since = time.monotonic()
    between: Callable[[Row], None] = Floor(workload, path).take_turn if timed else lambda _: None
    try:
        with (
            tracked(workload.trackers, path) as told,
            Simulation(workload, path, resume=True, address=address, observer=told) as simulation,
        ):
            outcome = _played(simulation, part, stop, judge, between, walltime)
    except Exception as error:  # a study continues after any failure of a point
        known = {DivergedError: DIVERGED, RefusedError: REFUSED}.get(type(error), "")
        kind = known if isinstance(error, InputError | RunError) else f"{type(error).__name__}: "
        return Outcome(error=" ".join(f"{kind}{error}".split()))
    return replace(outcome, seconds=time.monotonic() - since)


def _played(
    simulation: Simulation,
    part: Part,
    stop: Stop,
    judge: Judge | None,
    between: Callable[[Row], None],
    walltime: Walltime | None,
) -> Outcome:
    """Train and evaluate, or stop where `stop`, the judge or the walltime says so."""

    def pruned() -> bool:
        return judge is not None and judge.prunes(simulation.validated("psnr"))

    trained = simulation.run(lambda: stop() or pruned(), between, walltime)
    rungs = judge.reached(simulation.validated("psnr")) if judge else {}
    if judge and judge.replayed(rungs)[0]:  # perhaps long ago, if it was continued by hand
        return Outcome(pruned=True, rungs=rungs)
    if not trained:
        return Outcome(stopped=True, rungs=rungs)
    frame = simulation.evaluate(part)
    if not len(frame):
        return Outcome(error=f"no client has data in the {part} split")
    return Outcome(psnr=mean_over_sites(frame, "psnr"), rungs=rungs)


def run_until_flag(
    text: str, study: Path, path: Path, part: Part, flag: Path, judge: Judge | None, walltime: Walltime | None = None
) -> Outcome:
    """A point in a separate process; its workload is passed as text: a user's own method is a file of the study."""
    if flag.exists():
        return Outcome(stopped=True)
    content = json.loads(text)
    workload = read_content(content, f"{path}: ", code=True, folders=(study,))
    for name in workload.federation.own_datasets():
        find_own(name, (study,))
    with _collected_warnings() as warnings:
        outcome = run_point(workload, path, part, flag.exists, judge=judge, walltime=walltime)
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
