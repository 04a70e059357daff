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
from fedsim.study.kinds import KINDS, Settings, Study
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
    """Index among the method's tuning candidates; None for a point of the results."""
    settings: Settings
    """The settings that tuning chose, or tries in this point."""
    workload: Workload

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
        self._workloads = {
            (regime, method, index): self._load(regime, method, settings)
            for regime, method in self.pairs
            for index, settings in enumerate(self.candidates(method) or [{}])
        }

    @property
    def pairs(self) -> list[Pair]:
        """Regimes and methods."""
        return [(regime, method) for regime in self.regimes for method in self.study.methods]

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """Those of its points."""
        return next(iter(self._workloads.values())).trackers

    def describe(self) -> str:
        """The size of the study, in words."""
        study, tuning = self.study, len(self.tuning())
        parts = {"regime": self.regimes, "method": study.methods, "seed": study.seeds}
        counts = [counted(len(items), name) for name, items in parts.items()]
        return " x ".join(counts) + (f", after {tuning} tuning runs" if tuning else "")

    def candidates(self, method: str) -> list[Settings]:
        """The candidates of tuning."""
        return self.study.tune.candidates(method) if self.study.tune else []

    def tuned_in(self, regime: str) -> str:
        """The regime that a regime takes its tuning from."""
        return (self.study.tune and self.study.tune.regime) or regime

    def tuning(self) -> list[Point]:
        """The points of tuning; none for a method with a single candidate."""
        tune = self.study.tune
        return [
            self._point(regime, method, tune.seed, index, tuning=True)
            for regime, method in self.pairs
            if tune and self.tuned_in(regime) == regime and len(self.candidates(method)) > 1
            for index in range(len(self.candidates(method)))
        ]

    def finals(self, chosen: Mapping[Pair, int]) -> list[Point]:
        """The points of the results, one complete comparison per seed after another.

        Args:
            chosen: Index of the candidate by (regime, method); pairs that are missing have no points.
        """
        return [
            self._point(regime, method, seed, chosen[regime, method], tuning=False)
            for seed in self.study.seeds
            for regime, method in self.pairs
            if (regime, method) in chosen
        ]

    def _point(self, regime: str, method: str, seed: int, index: int, *, tuning: bool) -> Point:
        workload = self._workloads[regime, method, index].model_copy(update={"seed": seed})
        settings = (self.candidates(method) or [{}])[index]
        return Point(
            regime=regime,
            method=method,
            seed=seed,
            candidate=index if tuning else None,
            settings=settings,
            workload=workload,
        )

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
