"""Running the points of a study: in parallel where each needs one core, one after another where each uses a cluster.

Every point is an ordinary run directory, so a stopped study resumes where it stopped, and failed points are retried.
The points of a method run after its tuning has ended, because its settings are not known earlier.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.analysis.comparable import Terms, check_comparable
from fedsim.core.errors import InputError
from fedsim.engine.federation import assemble
from fedsim.engine.ray.cluster import connect, disconnect
from fedsim.engine.record.claim import Claim
from fedsim.engine.record.run_directory import Run
from fedsim.study.beta import beta_warning
from fedsim.study.frozen import check_same_point, freeze
from fedsim.study.point import Outcome, Stop, run_point, run_until_flag
from fedsim.study.results import (
    choose,
    collect,
    diverged,
    is_finished,
    negatives_of,
    read_failures,
    write_failures,
)
from fedsim.study.study import Pair, Point, StudyPlan

log = logging.getLogger("fedsim")

Report = Callable[[Point, Outcome], None]
"""Called with every point that has ended."""
Progress = Callable[[str, int], AbstractContextManager[Report]]
"""Opens the display of some points, given their name (tuning or points) and number."""

_LOOK_EVERY_S = 1.0  # a signal does not interrupt a wait for Ray


def silent(_name: str, _total: int) -> AbstractContextManager[Report]:
    """No display."""
    return nullcontext(lambda _point, _outcome: None)


@dataclass(frozen=True)
class StudyResult:
    """How a study ended."""

    folder: Path
    failed: tuple[str, ...]
    """One line for each failed point: its name and error."""
    stopped: bool


def run_study(
    plan: StudyPlan, folder: Path, progress: Progress = silent, stop: Stop = lambda: False, address: str | None = None
) -> StudyResult:
    """Run the unfinished points of a study, and collect its tables.

    Args:
        plan: The study.
        folder: Folder for its runs and tables.
        progress: Shows which points have ended.
        stop: Called regularly; once it returns true, the current rounds are the last.
        address: Ray cluster to use; None starts Ray on this machine.

    Raises:
        InputError: a point's data are invalid (nothing is written then), the folder holds something else, or another
            process runs a study there.
    """
    check_data(plan)
    _warn_of_switch(plan)
    beta = beta_warning(plan)
    if beta:
        log.warning(beta)
    with Claim(folder):
        freeze(plan, folder)
        runner = _Runner(plan, folder, progress, stop, address)
        runner.run(plan.tuning(), "tuning")
        chosen = choose(plan, folder, runner.failures)
        runner.run(plan.finals(chosen), "points")
        collect(plan, folder)
    return StudyResult(folder, () if runner.stopped else tuple(runner.failed_lines(chosen)), runner.stopped)


def _warn_of_switch(plan: StudyPlan) -> None:
    """Warn if a method changes between FedMRI's two forms of negatives, which are not the same term."""
    forms: dict[str, set[str]] = {}
    for point in plan.finals(dict.fromkeys(plan.pairs, 0)):
        form = negatives_of(point.workload)
        if form is not None:
            forms.setdefault(point.method, set()).add(form)
    for method, found in forms.items():
        if len(found) > 1:
            log.warning("%s has exact negatives in some regimes and moments in others; set algorithm.negatives", method)


def check_data(plan: StudyPlan) -> None:
    """Import and divide the data of every point, so that invalid data are refused before anything runs.

    Raises:
        InputError: a point's data are invalid, or two points could not be compared; names them.
    """
    finals = plan.finals(dict.fromkeys(plan.pairs, 0))
    manifests: dict[str, pd.DataFrame] = {}
    for point in (*plan.tuning(), *finals):
        if _data_key(point) not in manifests:
            try:
                manifests[_data_key(point)] = assemble(point.workload).manifest
            except InputError as error:
                raise InputError(f"{point.label}: {error}") from error
    for regime in plan.regimes:
        points = [point for point in finals if point.regime == regime]
        terms = {p.label: Terms(workload=p.workload, manifest=manifests[_data_key(p)]) for p in points}
        check_comparable(terms)


def _data_key(point: Point) -> str:
    """Key of everything that determines a point's manifest."""
    workload = point.workload
    return f"{workload.seed} {workload.algorithm.pools_data} {workload.federation.model_dump_json()}"


class _Runner:
    """Runs points to their end and records those that failed."""

    def __init__(self, plan: StudyPlan, folder: Path, progress: Progress, stop: Stop, address: str | None) -> None:
        self._plan, self._folder, self._progress, self._stop = plan, folder, progress, stop
        self._address = address
        self._flag = (folder / "stopping").absolute()
        self._flag.unlink(missing_ok=True)
        known = read_failures(folder)  # all are retried, except candidates that diverged
        self.failures = {p.label: known[p.label] for p in plan.tuning() if diverged(known.get(p.label, ""))}
        write_failures(folder, self.failures)
        self._warned: set[tuple[str, str]] = set()
        self.stopped = False

    def run(self, points: Sequence[Point], name: str) -> None:
        """Run those points that are neither finished nor known to diverge."""
        left = [point for point in points if point.label not in self.failures and not self._is_finished(point)]
        self.stopped |= bool(left) and self._stop()
        if self.stopped or not left:
            return
        with self._progress(name, len(left)) as report:
            for point, outcome in chain(self._side_by_side(left), self._in_turn(left)):
                self.stopped |= outcome.stopped
                self._warn_once(point, outcome)
                if outcome.error:
                    self.failures[point.label] = outcome.error
                    write_failures(self._folder, self.failures)
                if not outcome.stopped:
                    report(point, outcome)

    def _warn_once(self, point: Point, outcome: Outcome) -> None:
        for text in outcome.warnings:
            if (point.method, text) not in self._warned:
                self._warned.add((point.method, text))
                log.warning("%s: %s", point.label, text)

    def failed_lines(self, chosen: Mapping[Pair, int]) -> Iterator[str]:
        """A line for each point that failed, and for each method without a tuning result."""
        tuning = {point.label for point in self._plan.tuning()}
        for label, error in self.failures.items():
            if label not in tuning or not diverged(error):
                yield f"{label}: {error}"
        for regime, method in self._plan.pairs:
            if (regime, method) not in chosen:
                yield f"{regime}/{method}: was not run, because its tuning has no result"

    def _is_finished(self, point: Point) -> bool:
        if not is_finished(point, self._folder):
            return False
        check_same_point(point.label, Run(self._folder / point.folder).workload, point.workload)
        return True

    def _in_turn(self, points: Sequence[Point]) -> Iterator[tuple[Point, Outcome]]:
        """Run points that use all cores or a whole cluster, one after another."""
        for point in points:
            if point.workload.engine.backend == "ray" and not self.stopped:
                where = (self._folder / point.folder, point.part, self._stop, self._address)
                timed = self._plan.study.has_floor
                yield point, run_point(point.workload, *where, study=self._folder, timed=timed)

    def _side_by_side(self, points: Sequence[Point]) -> Iterator[tuple[Point, Outcome]]:
        """Run points in one process each, in parallel, one per core."""
        serial = [point for point in points if point.workload.engine.backend == "serial"]
        if not serial:
            return
        ray, owned = connect(self._address)
        running = self._submitted(ray, serial)
        try:
            while running:
                done, _ = ray.wait(list(running), timeout=_LOOK_EVERY_S)
                if self._stop():
                    self._flag.touch()
                for ref in done:
                    yield running.pop(ref), _outcome_of(ray, ref)
        finally:
            for ref in running:
                ray.cancel(ref, force=True)
            if owned:
                disconnect()
            self._flag.unlink(missing_ok=True)

    def _submitted(self, ray: Any, points: Sequence[Point]) -> dict[Any, Point]:  # noqa: ANN401 - Ray's module
        """Submit the points as Ray tasks; returns them by reference."""
        calls = 1 if self._plan.study.measures_memory else 0  # calls per process; 0: any number
        task = ray.remote(max_retries=0, max_calls=calls)(run_until_flag)
        cores = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes())
        study, running = self._folder.absolute(), {}
        for point in points:
            threads = min(point.workload.engine.threads, cores)  # a task that requires more would wait forever
            arguments = (point.workload.model_dump_json(), study, study / point.folder, point.part, self._flag)
            running[task.options(num_cpus=threads).remote(*arguments)] = point
        return running


def _outcome_of(ray: Any, ref: Any) -> Outcome:  # noqa: ANN401 - Ray's module and reference
    try:
        outcome: Outcome = ray.get(ref)
        return outcome
    except ray.exceptions.RayError as error:
        return Outcome(error=" ".join(f"{type(error).__name__}: {error}".split())[:300])
