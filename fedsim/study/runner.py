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

from fedsim.analysis.comparable import Terms, check_comparable
from fedsim.core.errors import InputError
from fedsim.engine.federation import Federation, assemble
from fedsim.engine.plan.fits import check_time
from fedsim.engine.plan.walltime import Walltime
from fedsim.engine.ray.cluster import connect, disconnect
from fedsim.engine.record.claim import Claim
from fedsim.engine.record.kept import check_kept
from fedsim.engine.record.run_directory import Run
from fedsim.engine.tracking.tracking import tell_rest
from fedsim.study.beta import beta_warning
from fedsim.study.choosing import choose, why_none
from fedsim.study.ended import is_finished, read_failures, write_failures
from fedsim.study.frozen import check_same_point, freeze
from fedsim.study.journal import journal
from fedsim.study.library import optuna
from fedsim.study.outcome import REFUSED, Outcome, is_answer
from fedsim.study.piece import WHOLE, Piece, piece_of
from fedsim.study.point import Stop, run_point, run_until_flag
from fedsim.study.results import collect, negatives_of
from fedsim.study.search import Searches
from fedsim.study.study import Case, Point, StudyPlan
from fedsim.study.tune import Candidate

log = logging.getLogger("fedsim")

Report = Callable[[Point, Outcome], None]
"""Called with every point that has ended."""
Progress = Callable[[str, int], AbstractContextManager[Report]]
"""Opens the display of some points, given their name (tuning or points) and number."""

After = Callable[[Point, Outcome], Point | None]
"""Given how a point ended, the point that follows it, if one does."""

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
    plan: StudyPlan,
    folder: Path,
    progress: Progress = silent,
    stop: Stop = lambda: False,
    address: str | None = None,
    walltime: Walltime | None = None,
    only: str = WHOLE,
) -> StudyResult:
    """Run the unfinished points of a study, or of a piece of it, and collect its tables.

    Args:
        plan: The study.
        folder: Folder for its runs and tables.
        progress: Shows which points have ended.
        stop: Called regularly once the folder is the study's; when it returns true, the current rounds are the last.
        address: Ray cluster to use; None starts Ray on this machine.
        walltime: What the study may take; once a point stops for lack of time, the current rounds are the last.
        only: Shell pattern of the regimes and methods to run, `REGIME` or `REGIME/METHOD`.

    Raises:
        InputError: a point's data are invalid (nothing is written then), the folder holds something else, or another
            process runs a study there.
    """
    piece = piece_of(plan, only)
    if plan.searched:
        optuna()  # or refuse, before anything is written
    check_data(plan, piece)
    _warn_of_switch(plan)
    beta = beta_warning(plan)
    if beta:
        log.warning(beta)
    with Claim(folder):
        freeze(plan, folder)
        runner = _Runner(plan, folder, progress, stop, address, walltime or Walltime(), piece)
        runner.run(plan.tuning(), "tuning")
        runner.search()
        chosen = choose(plan, folder, runner.failures)
        runner.run(plan.finals(chosen), "points")
        collect(plan, folder)
    return StudyResult(folder, () if runner.stopped else tuple(runner.failed_lines(chosen)), runner.stopped)


def _warn_of_switch(plan: StudyPlan) -> None:
    """Warn if a method changes between FedMRI's two forms of negatives, which are not the same term."""
    forms: dict[str, set[str]] = {}
    for point in plan.examples():
        form = negatives_of(point.workload)
        if form is not None:
            forms.setdefault(point.method, set()).add(form)
    for method, found in forms.items():
        if len(found) > 1:
            log.warning("%s has exact negatives in some regimes and moments in others; set algorithm.negatives", method)


def check_data(plan: StudyPlan, piece: Piece | None = None) -> None:
    """Import and divide the data of a study or a piece: invalid data and times are refused before anything runs.

    Raises:
        InputError: a point's data are invalid, simulated time does not let it finish, or two points could not be
            compared; names them.
    """
    trials = [plan.trial(case, plan.example(case.method)) for case in plan.searched]
    tuning, finals = (
        [point for point in points if piece is None or piece.has(point)]
        for points in ((*plan.tuning(), *trials), plan.examples())
    )
    federations: dict[str, Federation] = {}
    for point in (*tuning, *finals):
        key = _data_key(point)
        try:
            if key not in federations:
                federations[key] = assemble(point.workload)
            check_time(point.workload.settled(), federations[key].clients)
        except InputError as error:
            raise InputError(f"{point.label}: {error}") from error
    for regime in dict.fromkeys(point.regime for point in finals):
        points = [point for point in finals if point.regime == regime]
        terms = {p.label: Terms(workload=p.workload, manifest=federations[_data_key(p)].manifest) for p in points}
        check_comparable(terms)


def _data_key(point: Point) -> str:
    """Key of everything that determines a point's manifest."""
    workload = point.workload
    return f"{workload.seed} {workload.algorithm.pools_data} {workload.federation.model_dump_json()}"


class _Runner:
    """Runs points to their end and records those that failed."""

    def __init__(
        self,
        plan: StudyPlan,
        folder: Path,
        progress: Progress,
        stop: Stop,
        address: str | None,
        walltime: Walltime,
        piece: Piece,
    ) -> None:
        self._plan, self._folder, self._progress, self._stop = plan, folder, progress, stop
        self._address, self._walltime, self._piece = address, walltime, piece
        self._flag = (folder / "stopping").absolute()
        self._flag.unlink(missing_ok=True)
        known = read_failures(folder)  # all are retried, except candidates that diverged or were refused
        self.failures = {at: why for at, why in known.items() if is_answer(at, why) or not piece.has_label(at)}
        write_failures(folder, self.failures)
        self._warned: set[tuple[str, str]] = set()
        self.stopped = False

    def run(self, points: Sequence[Point], name: str) -> None:
        """Run those points of the piece that are neither finished nor known to diverge or to be refused."""
        wanted = [point for point in points if self._piece.has(point)]
        left = [point for point in wanted if point.label not in self.failures and not self._passes_over(point)]
        self._play(left, name, len(left), lambda _point, _outcome: None)

    def search(self) -> None:
        """Run the trials of every search: one after another in each, because a trial depends on those before it."""
        if not self._piece.tuned.intersection(self._plan.searched):
            return
        searches = Searches(self._plan, self._piece.tuned, journal(self._folder, writes=True))
        self._play(searches.heads(), "tuning", searches.left, searches.after)

    def _play(self, points: Sequence[Point], name: str, total: int, after: After) -> None:
        self.stopped |= self._stop() and bool(points)
        if self.stopped or not points:
            return
        with self._progress(name, total) as report:
            for point, outcome in chain(self._side_by_side(points, after), self._in_turn(points, after)):
                self.stopped |= outcome.stopped
                self._warn_once(point, outcome)
                if outcome.error:
                    self.failures[point.label] = outcome.error
                    write_failures(self._folder, self.failures)
                if not outcome.stopped:
                    report(point, outcome)

    def _warn_once(self, point: Point, outcome: Outcome) -> None:
        told = [outcome.error] if outcome.refused and point.candidate is not None else []
        for text in (*outcome.warnings, *told):
            if (point.method, text) not in self._warned:
                self._warned.add((point.method, text))
                log.warning("%s: %s", point.label, text)

    def failed_lines(self, chosen: Mapping[Case, Candidate]) -> Iterator[str]:
        """A line for each point that failed, and for each method without a tuning result."""
        for label, error in self.failures.items():
            if not is_answer(label, error) and self._piece.has_label(label):
                yield f"{label}: {error}"
        for case in self._plan.cases:
            if case in self._piece.cases and case not in chosen:
                why, fold = why_none(self._plan, self._folder, self.failures, case), f", fold {case.fold}"
                yield f"{case.regime}/{case.method}{fold if case.fold else ''}: was not run, because {why}"

    def _passes_over(self, point: Point) -> bool:
        """Whether a point has finished; a tracker that was lost meanwhile is told the rest."""
        if not is_finished(point, self._folder):
            return False
        check_kept(self._folder / point.folder, point.workload)
        check_same_point(point.label, Run(self._folder / point.folder).workload, point.workload)
        if not self._stop():
            tell_rest(point.workload.trackers, self._folder / point.folder)
        return True

    def _in_turn(self, points: Sequence[Point], after: After) -> Iterator[tuple[Point, Outcome]]:
        """Run points that use all cores or a whole cluster, and those that follow them, one after another."""
        for first in points:
            point = first if first.workload.engine.backend == "ray" else None
            while point and not self.stopped:
                outcome = self._run_here(point)
                ended, point = point, after(point, outcome)
                yield ended, outcome

    def _run_here(self, point: Point) -> Outcome:
        if self._stop():  # it was told between two points, or while nodes were waited for
            return Outcome(stopped=True)
        if point.refused:
            return Outcome(error=REFUSED + point.refused)
        return run_point(
            point.workload, self._folder / point.folder, point.part, self._stop, judge=point.judge,
            address=self._address, timed=self._plan.study.has_floor, walltime=self._walltime,
        )  # fmt: skip

    def _side_by_side(self, points: Sequence[Point], after: After) -> Iterator[tuple[Point, Outcome]]:
        """Run points in one process each, in parallel, one per core, and those that follow them."""
        serial = [point for point in points if point.workload.engine.backend == "serial"]
        if not serial:
            return
        ray, owned = connect(self._address)
        submit = self._submitter(ray)
        running = {submit(point): point for point in serial}
        try:
            while running:
                done, _ = ray.wait(list(running), timeout=_LOOK_EVERY_S)
                if self._stop() or self.stopped:
                    self._flag.touch()
                for ref in done:
                    point, outcome = running.pop(ref), _outcome_of(ray, ref)
                    if following := after(point, outcome):
                        running[submit(following)] = following
                    yield point, outcome
        finally:
            for ref in running:
                ray.cancel(ref, force=True)
            if owned:
                disconnect()
            self._flag.unlink(missing_ok=True)

    def _submitter(self, ray: Any) -> Callable[[Point], Any]:  # noqa: ANN401 - Ray's module
        """What submits a point as a Ray task and returns its reference."""
        calls = 1 if self._plan.study.measures_memory else 0  # calls per process; 0: any number
        task = ray.remote(max_retries=0, max_calls=calls)(run_until_flag)
        cores = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes())
        study = self._folder.absolute()

        def submit(point: Point) -> Any:  # noqa: ANN401 - Ray's reference
            if point.refused:
                return ray.put(Outcome(error=REFUSED + point.refused))
            threads = min(point.workload.engine.threads, cores)  # a task that requires more would wait forever
            text, path = point.workload.model_dump_json(), study / point.folder
            options = (point.part, self._flag, point.judge, self._walltime)
            return task.options(num_cpus=threads).remote(text, study, path, *options)

        return submit


def _outcome_of(ray: Any, ref: Any) -> Outcome:  # noqa: ANN401 - Ray's module and reference
    try:
        outcome: Outcome = ray.get(ref)
        return outcome
    except ray.exceptions.RayError as error:
        return Outcome(error=" ".join(f"{type(error).__name__}: {error}".split())[:300])
