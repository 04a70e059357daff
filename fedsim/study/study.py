"""A study file: one base workload, and the methods, regimes and seeds to run it with.

Every run of a study is a point. A point's workload is the base workload, overridden in this order by `set`, its regime,
its method, what tuning chose for that method, and its seed.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.core.errors import InputError, hint
from fedsim.core.text import counted
from fedsim.core.yaml import read_yaml
from fedsim.data.split import Part
from fedsim.study.axes import Settings
from fedsim.study.kinds import KINDS, Study
from fedsim.study.pruning import Judge
from fedsim.study.tune import UNTUNED, Candidate, Tune
from fedsim.trackers.base import Tracker
from fedsim.workload.reading import load_workload, parse_section, parse_setting
from fedsim.workload.schema import Workload

Pair = tuple[str, str]
"""Regime and method."""

# Below these keys of a study file, a dotted key is one key of the workload; `*` is a label.
_WORKLOAD_KEYS_BELOW = (
    ("set",),
    ("methods", "*"),
    ("regimes", "*"),
    ("axes",),
    ("tune", "grid"),
    ("tune", "space"),
    ("tune", "methods", "*"),
)


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
    judge: Judge | None = None
    """What may end a trial of a search early."""

    @property
    def folder(self) -> Path:
        """The run directory inside the study's folder."""
        last = f"seed-{self.seed}" if self.candidate is None else f"tune-{self.candidate}"
        return Path("runs") / self.regime / self.method / last

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
        for regime, method in self.pairs:
            for settings in self._samples(method):
                self._workload(regime, method, settings)
        self._check_search()

    @property
    def pairs(self) -> list[Pair]:
        """Regimes and methods."""
        return [(regime, method) for regime in self.regimes for method in self.study.methods]

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """Those of its points."""
        return next(iter(self._workloads.values())).trackers

    @property
    def searched(self) -> list[Pair]:
        """The regimes and methods whose settings are searched for."""
        tune = self.study.tune
        found = tune is not None and tune.searches
        return [pair for pair in self.pairs if found and self.tuned_in(pair[0]) == pair[0] and self.tune.runs(pair[1])]

    @property
    def tune(self) -> Tune:
        """How settings are chosen, in a study that does so."""
        assert self.study.tune is not None
        return self.study.tune

    @property
    def tuning_runs(self) -> int:
        """The number of runs that choose settings, at most."""
        return len(self.tuning()) + sum(self.tune.runs(method) for _, method in self.searched)

    def describe(self) -> str:
        """The size of the study, in words."""
        study, tuning = self.study, self.tuning_runs
        parts = {"regime": self.regimes, "method": study.methods, "seed": study.seeds}
        counts = [counted(len(items), name) for name, items in parts.items()]
        return " x ".join(counts) + (f", after {tuning} tuning runs" if tuning else "")

    def candidates(self, method: str) -> list[Candidate]:
        """The candidates of a method's grid; of a method without one, or whose settings are searched for, just one."""
        grid = self.study.tune.candidates(method) if self.study.tune else []
        return [Candidate(number, settings) for number, settings in enumerate(grid)] or [UNTUNED]

    def tuned_in(self, regime: str) -> str:
        """The regime that a regime takes its tuning from."""
        return (self.study.tune and self.study.tune.regime) or regime

    def tuning(self) -> list[Point]:
        """The points of tuning by a grid; none for a method with a single candidate."""
        return [
            self._point(pair, self.tune.seed, candidate, tuning=True)
            for pair in self.pairs
            if self.study.tune and self.tuned_in(pair[0]) == pair[0] and len(self.candidates(pair[1])) > 1
            for candidate in self.candidates(pair[1])
        ]

    def trial(self, pair: Pair, candidate: Candidate) -> Point:
        """A trial of a search.

        Raises:
            InputError: its workload is invalid.
        """
        return self._point(pair, self.tune.seed, candidate, tuning=True)

    def finals(self, chosen: Mapping[Pair, Candidate]) -> list[Point]:
        """The points of the results, one complete comparison per seed after another.

        Args:
            chosen: The candidate by (regime, method); pairs that are missing have no points.
        """
        return [
            self._point(pair, seed, chosen[pair], tuning=False)
            for seed in self.study.seeds
            for pair in self.pairs
            if pair in chosen
        ]

    def example(self, method: str) -> Candidate:
        """A candidate of a method."""
        return Candidate(0, self._samples(method)[0])

    def examples(self) -> list[Point]:
        """The points of the results, with a candidate each, whichever is going to be chosen."""
        return self.finals({pair: self.example(pair[1]) for pair in self.pairs})

    def _point(self, pair: Pair, seed: int, candidate: Candidate, *, tuning: bool) -> Point:
        regime, method = pair
        return Point(
            regime=regime,
            method=method,
            seed=seed,
            candidate=candidate.number if tuning else None,
            settings=candidate.settings,
            workload=self._workload(regime, method, candidate.settings).model_copy(update={"seed": seed}),
        )

    def _samples(self, method: str) -> list[Settings]:
        """The settings of a method to validate: all there are, or what stands for those that a search may draw."""
        return (self.study.tune.samples(method) if self.study.tune else []) or [{}]

    def _check_search(self) -> None:
        """Refuse a search that gives methods unlike budgets, or that judges rounds which are not validated."""
        for regime in dict.fromkeys(regime for regime, _ in self.searched):
            methods = [method for one, method in self.searched if one == regime]
            try:
                self.tune.check_budgets({m: self._workload(regime, m, self._samples(m)[0]) for m in methods})
            except ValueError as error:
                raise InputError(f"{self._where}: regime {regime}, {error}") from error

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
        axes = self.study.tune.methods.get(method, {}) if self.study.tune else {}
        for key in (*own, *axes):
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
        _override(content, setting)
    study = parse_section(_kind_of(content, path), content, f"{path}: ")
    base = path.parent / study.workload.expanduser()
    load_workload(base, code=code)  # so that errors of the base itself are reported as such
    return StudyPlan(study, base, str(path), code)


def _kind_of(content: Mapping[str, Any], path: Path) -> type[Study]:
    named = content.get("kind", "compare")
    if not isinstance(named, str) or named not in KINDS:
        raise InputError(f"{path}: kind: unknown {named!r}; {hint(str(named), KINDS)}")
    return KINDS[named]


def _override(content: dict[str, Any], setting: str) -> None:
    key, value = parse_setting(setting)
    *parents, last = _study_path(key)
    node: Any = content
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise InputError(f"--set {key}: {parent} is not a section")
    node[last] = value


def _study_path(key: str) -> list[str]:
    parts = key.split(".")
    for pattern in _WORKLOAD_KEYS_BELOW:
        depth = len(pattern)
        if len(parts) > depth and all(want in {"*", part} for want, part in zip(pattern, parts, strict=False)):
            return [*parts[:depth], ".".join(parts[depth:])]
    return parts


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
