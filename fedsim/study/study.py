"""A study file: one base workload, and the methods, regimes and seeds to run it with.

Every run of a study is a point. A point's workload is the base workload, overridden in this order by `set`, its regime,
its method, what tuning chose for that method, and its seed.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fedsim.core.errors import InputError, hint
from fedsim.core.text import counted
from fedsim.core.yaml import read_yaml
from fedsim.data.folds import Folds
from fedsim.data.split import Part
from fedsim.study.axes import Settings
from fedsim.study.kinds import KINDS, Study
from fedsim.study.overrides import override
from fedsim.study.pruning import Judge
from fedsim.study.tune import UNTUNED, Candidate, Tune
from fedsim.trackers.base import Tracker
from fedsim.workload.reading import load_workload, parse_section
from fedsim.workload.schema import Workload


class Case(NamedTuple):
    """What settings are chosen for: a method in a regime, and where a study has folds in each of these."""

    regime: str
    method: str
    fold: int | None = None
    """From 1."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run of a study."""

    regime: str
    method: str
    seed: int
    """Of its workload."""
    candidate: int | None
    """Its number among the method's tuning candidates; None for a point of the results."""
    settings: Settings
    """The settings that tuning chose, or tries in this point."""
    workload: Workload
    fold: int | None = None
    """Which of the study's folds is test, from 1; None in a study without."""
    judge: Judge | None = None
    """What may end a trial of a search early."""
    refused: str = ""
    """Why the trial cannot be run, whose workload is then that of its method's example."""

    @property
    def folder(self) -> Path:
        """The run directory inside the study's folder."""
        first = f"seed-{self.seed}" if self.candidate is None else f"tune-{self.candidate}"
        last = first if self.fold is None else f"{first}-fold-{self.fold}"
        return Path("runs") / self.regime / self.method / last

    @property
    def case(self) -> Case:
        """What its settings were chosen for, or are tried for."""
        return Case(self.regime, self.method, self.fold)

    @property
    def part(self) -> Part:
        """The split that the point is evaluated on: tuning never sees test data."""
        return "test" if self.candidate is None else "val"

    @property
    def label(self) -> str:
        """Its name in messages."""
        return "/".join(self.folder.parts[1:])


class StudyPlan:
    """The points of a study, every workload of them validated."""

    def __init__(self, study: Study, base: Path, where: str, code: bool = True) -> None:
        """Load every workload; without `code`, of users' own methods only the keys are read.

        Raises:
            InputError: a workload is invalid; the message begins with `where` and names regime and method.
        """
        self.study, self.base, self._where, self._code = study, base, where, code
        self.regimes = study.sweep()
        self._workloads: dict[tuple[str, str, str], Workload] = {}
        for regime, method in dict.fromkeys((case.regime, case.method) for case in self.cases):
            for settings in self._samples(method):
                self._workload(regime, method, settings)
        self._check_search()
        self._check_endpoint()

    @property
    def cases(self) -> list[Case]:
        """Regimes and methods, and where there are folds these in each, fold after fold."""
        folds: list[int | None] = [*range(1, self.study.folds + 1)] if self.study.folds else [None]
        return [Case(r, m, fold) for fold in folds for r in self.regimes for m in self.study.methods]

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """Those of its points."""
        return next(iter(self._workloads.values())).trackers

    @property
    def searched(self) -> list[Case]:
        """Those whose settings are searched for."""
        tune = self.study.tune
        found = tune is not None and tune.searches
        return [case for case in self.cases if found and self.tuned_in(case) == case and self.tune.runs(case.method)]

    @property
    def tune(self) -> Tune:
        """How settings are chosen, in a study that does so."""
        assert self.study.tune is not None
        return self.study.tune

    @property
    def tuning_runs(self) -> int:
        """The number of runs that choose settings, at most."""
        return len(self.tuning()) + sum(self.tune.runs(case.method) for case in self.searched)

    def describe(self) -> str:
        """The size of the study, in words."""
        study, tuning = self.study, self.tuning_runs
        parts = {"regime": self.regimes, "method": study.methods, "seed": study.seeds}
        folds = f" x {study.folds} folds" if study.folds else ""
        counts = [counted(len(items), name) for name, items in parts.items()]
        return " x ".join(counts) + folds + (f", after {tuning} tuning runs" if tuning else "")

    def candidates(self, method: str) -> list[Candidate]:
        """The candidates of a method's grid; of a method without one, or whose settings are searched for, just one."""
        grid = self.study.tune.candidates(method) if self.study.tune else []
        return [Candidate(number, settings) for number, settings in enumerate(grid)] or [UNTUNED]

    def tuned_in(self, case: Case) -> Case:
        """The case that a case takes its settings from."""
        return case._replace(regime=(self.study.tune and self.study.tune.regime) or case.regime)

    def tuning(self) -> list[Point]:
        """The points of tuning by a grid; none for a method with a single candidate."""
        return [
            self._point(case, self.tune.seed, candidate, tuning=True)
            for case in self.cases
            if self.study.tune and self.tuned_in(case) == case and len(self.candidates(case.method)) > 1
            for candidate in self.candidates(case.method)
        ]

    def trial(self, case: Case, candidate: Candidate) -> Point:
        """A trial of a search, refused if its settings are invalid together: samples try each beside first ones only.

        Raises:
            InputError: something else is invalid, such as a base workload that has changed meanwhile.
        """
        try:
            return self._point(case, self.tune.seed, candidate, tuning=True)
        except InputError as error:
            example = self.example(case.method)
            self._load(case.regime, case.method, example.settings)
            point = self.trial(case, example._replace(number=candidate.number))
            why = str(error).partition(f" method {case.method}: ")[2]
            return replace(point, settings=candidate.settings, refused=why)

    def finals(self, chosen: Mapping[Case, Candidate]) -> list[Point]:
        """The points of the results, one complete comparison per seed after another.

        Args:
            chosen: The candidate by case; cases that are missing have no points.
        """
        return [
            self._point(case, seed, chosen[case], tuning=False)
            for seed in self.study.seeds
            for case in self.cases
            if case in chosen
        ]

    def example(self, method: str) -> Candidate:
        """A candidate of a method."""
        return Candidate(0, self._samples(method)[0])

    def examples(self) -> list[Point]:
        """The points of the results, with a candidate each, whichever is going to be chosen."""
        return self.finals({case: self.example(case.method) for case in self.cases})

    def _point(self, case: Case, seed: int, candidate: Candidate, *, tuning: bool) -> Point:
        workload = self._workload(case.regime, case.method, candidate.settings)
        federation = workload.federation
        if self.study.folds and case.fold:
            folds = Folds(count=self.study.folds, test=case.fold, seed=self.study.seeds[0])
            federation = federation.model_copy(update={"folds": folds})
        return Point(
            regime=case.regime,
            method=case.method,
            seed=seed,
            fold=case.fold,
            candidate=candidate.number if tuning else None,
            settings=candidate.settings,
            workload=workload.model_copy(update={"seed": seed, "federation": federation}),
        )

    def _samples(self, method: str) -> list[Settings]:
        """The settings of a method to validate: all there are, or what stands for those that a search may draw."""
        return (self.study.tune.samples(method) if self.study.tune else []) or [{}]

    def _check_search(self) -> None:
        """Refuse a search that gives methods unlike budgets, or that judges rounds which are not validated."""
        for regime in dict.fromkeys(case.regime for case in self.searched):
            methods = [case.method for case in self.searched if case.regime == regime]
            try:
                self.tune.check_budgets({m: self._workload(regime, m, self._samples(m)[0]) for m in methods})
            except ValueError as error:
                raise InputError(f"{self._where}: regime {regime}, {error}") from error

    def _check_endpoint(self) -> None:
        """Refuse an endpoint that no volume would be scored by."""
        endpoint = self.study.endpoint
        if endpoint is not None and endpoint.metric.startswith("roi_"):
            bare = [point.label for point in self.examples() if not point.workload.metrics.boxes]
            if bare:
                raise InputError(
                    f"{self._where}: endpoint.metric: {endpoint.metric} needs metrics.boxes; {bare[0]} has none"
                )

    def _workload(self, regime: str, method: str, settings: Settings) -> Workload:
        key = regime, method, _as_yaml(settings)
        if key not in self._workloads:
            self._workloads[key] = self._load(regime, method, settings)
        return self._workloads[key]

    def _load(self, regime: str, method: str, candidate: Settings) -> Workload:
        own = {"algorithm.name": method, **self.study.methods[method]}
        layers = (self.study.set, self.regimes[regime], own, candidate)
        overrides = [f"{key}={_as_yaml(value)}" for layer in layers for key, value in layer.items()]
        name = f"{self._where}: regime {regime}, method {method}"
        try:
            with _without_notes():
                workload = load_workload(self.base, overrides, code=self._code)
        except InputError as error:
            raise InputError(f"{name}: {str(error).removeprefix(f'{self.base}: ')}") from error
        if self.study.needs_ray and workload.engine.backend != "ray":
            raise InputError(f"{name}: engine.backend: {self.study.kind} needs ray, because a serial run has one core")
        for key in (*own, *candidate):
            section, _, rest = key.partition(".")
            known = (
                type(getattr(workload, section)).model_fields
                if section in {"algorithm", "model"} and self._code
                else {}
            )
            if rest and known and rest.partition(".")[0] not in known:
                kind = getattr(workload, section).name
                raise InputError(f"{name}: {key}: is not a key of {kind}; known: {', '.join(known)}")
        return workload


def load_study(path: Path, overrides: Sequence[str] = (), *, code: bool = True) -> StudyPlan:
    """The plan of a study file with `KEY=VALUE` overrides of its keys; without `code`, no user's code is executed.

    Raises:
        InputError: the file, its base workload or one of its points is invalid.
    """
    content = read_yaml(path)
    for setting in overrides:
        override(content, setting)
    study = parse_section(_kind_of(content, path), content, f"{path}: ")
    base = path.parent / study.workload.expanduser()
    load_workload(base, code=code)  # so that errors of the base itself are reported as such
    return StudyPlan(study, base, str(path), code)


def _kind_of(content: Mapping[str, Any], path: Path) -> type[Study]:
    named = content.get("kind", "compare")
    if not isinstance(named, str) or named not in KINDS:
        raise InputError(f"{path}: kind: unknown {named!r}; {hint(str(named), KINDS)}")
    return KINDS[named]


def _as_yaml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


@contextmanager
def _without_notes() -> Iterator[None]:
    """Silence the notes on keys of other methods, which every point of a comparison would repeat."""

    def never(_record: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("fedsim")
    log.addFilter(never)
    try:
        yield
    finally:
        log.removeFilter(never)
