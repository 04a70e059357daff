"""A study file: one base workload, and the methods, regimes and seeds that it is run with.

Every run of a study is a point. A point's workload is the base workload with `set`, its regime, its method, and what
tuning chose for that method, in this order, as overrides; and its seed.
"""

import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fedsim.config import Workload
from fedsim.data.split import Part
from fedsim.errors import InputError
from fedsim.schema import FolderPath, Name, Section
from fedsim.workload import load_workload, parse_section, parse_setting, read_yaml

Settings = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]
"""Dotted keys of a workload with their values."""
Axes = dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]
"""Dotted keys of a workload with the values to try."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Pair = tuple[str, str]
"""Regime and method."""

_MOST_RUNS = 10_000
_SECTIONS = ("federation", "model", "algorithm", "training", "engine", "metrics")
# Below these keys of a study file, a dotted key is one key of the workload; `*` is a label.
_WORKLOAD_KEYS_BELOW = (("set",), ("methods", "*"), ("regimes", "*"), ("tune", "grid"), ("tune", "methods", "*"))


class Tune(Section):
    """What is chosen for each method by validation PSNR, on a seed of its own, before the study's seeds are run.

    Every seed divides the subjects anew, so a validation subject of the tuning seed may be a test subject of another.
    """

    seed: Seed = Field(description="Seed of the tuning runs; none of the study's.")
    regime: Name | None = Field(None, description="Tune in this regime only, for all; default: in each for itself.")
    grid: Axes = Field(default_factory=dict, description="Values to try for every method, by dotted workload key.")
    methods: dict[Name, Axes] = Field(default_factory=dict, description="More axes for some methods.")

    def candidates(self, method: str) -> list[Settings]:
        """Every combination of the method's values; empty if it has none to choose from."""
        axes = {**self.grid, **self.methods.get(method, {})}
        products = itertools.product(*axes.values()) if axes else ()
        return [dict(zip(axes, values, strict=True)) for values in products]


class Study(Section):
    """A comparison of methods: every method in every regime with every seed."""

    name: Name = Field(description="Name of the study; the default folder is studies/NAME.")
    kind: Literal["compare"] = Field("compare", description="compare: methods against a reference, seed by seed.")
    workload: FolderPath = Field(description="Base workload file, relative to the study file.")
    set: Settings = Field(default_factory=dict, description="Overrides of the base for every point, by dotted key.")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="Each is a repetition with its own split and start.")
    reference: Name = Field(description="The method that paired differences are taken to.")
    methods: dict[Name, Settings] = Field(
        min_length=1, description="Overrides by label; algorithm.name defaults to the label."
    )
    regimes: dict[Name, Settings] = Field({"all": {}}, min_length=1, description="Overrides by label.")
    tune: Tune | None = Field(None, description="What to choose before the seeds are run.")

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        if self.reference not in self.methods:
            raise ValueError(f"reference: {self.reference!r} is none of methods ({', '.join(self.methods)})")
        twice = [seed for seed, count in Counter(self.seeds).items() if count > 1]
        if twice:
            raise ValueError(f"seeds: {twice[0]} is there twice")
        self._check_tune()
        self._check_size()
        for where, settings in self._all_settings():
            if "seed" in settings:
                raise ValueError(f"{where}: seed is not for overrides; list seeds under seeds")
            bare = [key for key in settings if key in _SECTIONS]
            if bare:
                raise ValueError(f"{where}: {bare[0]} would replace the whole section; write {bare[0]}.KEY: VALUE")
        return self

    def _check_tune(self) -> None:
        if self.tune is None:
            return
        if self.tune.seed in self.seeds:
            raise ValueError(f"tune.seed: {self.tune.seed} is one of seeds; tuning needs a seed of its own")
        if self.tune.regime is not None and self.tune.regime not in self.regimes:
            raise ValueError(f"tune.regime: {self.tune.regime!r} is none of regimes ({', '.join(self.regimes)})")
        for label in self.tune.methods:
            if label not in self.methods:
                raise ValueError(f"tune.methods: {label!r} is none of methods ({', '.join(self.methods)})")

    def _check_size(self) -> None:
        grids = [{**self.tune.grid, **self.tune.methods.get(label, {})} for label in self.methods] if self.tune else []
        tuning = sum(math.prod(map(len, axes.values())) for axes in grids)
        runs = len(self.regimes) * (tuning + len(self.methods) * len(self.seeds))
        if runs > _MOST_RUNS:
            raise ValueError(f"methods, regimes, seeds and tune make more than {_MOST_RUNS:,} runs; write two studies")

    def _all_settings(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield "set", self.set
        for section in ("methods", "regimes"):
            yield from ((f"{section}.{label}", settings) for label, settings in getattr(self, section).items())
        if self.tune is not None:
            yield "tune.grid", self.tune.grid
            yield from ((f"tune.methods.{label}", axes) for label, axes in self.tune.methods.items())


@dataclass(frozen=True)
class Point:
    """One run of a study."""

    regime: str
    method: str
    seed: int
    candidate: int | None
    """Index among the method's candidates; None for a run that counts."""
    settings: Settings
    """What tuning chose, or tries here."""
    workload: Workload

    @property
    def folder(self) -> Path:
        """The run directory inside the study's folder."""
        last = f"seed-{self.seed}" if self.candidate is None else f"tune-{self.candidate}"
        return Path("runs") / self.regime / self.method / last

    @property
    def part(self) -> Part:
        """What the point is evaluated on: tuning never sees test data."""
        return "test" if self.candidate is None else "val"

    @property
    def label(self) -> str:
        """Its name in messages."""
        return "/".join(self.folder.parts[1:])


class Plan:
    """The points of a study, every workload of them validated."""

    def __init__(self, study: Study, base: Path, where: str) -> None:
        """Load every workload.

        Raises:
            InputError: one is wrong; the message begins with `where` and names regime and method.
        """
        self.study, self.base, self._where = study, base, where
        self._workloads = {
            (regime, method, index): self._load(regime, method, settings)
            for regime, method in self.pairs
            for index, settings in enumerate(self.candidates(method) or [{}])
        }

    @property
    def pairs(self) -> list[Pair]:
        """Regimes and methods."""
        return [(regime, method) for regime in self.study.regimes for method in self.study.methods]

    def describe(self) -> str:
        """How large the study is."""
        study, tuning = self.study, len(self.tuning())
        parts = {"regime": study.regimes, "method": study.methods, "seed": study.seeds}
        counts = [f"{len(items)} {name}{'s' * (len(items) > 1)}" for name, items in parts.items()]
        return " x ".join(counts) + (f", after {tuning} tuning runs" if tuning else "")

    def candidates(self, method: str) -> list[Settings]:
        """What tuning may choose from."""
        return self.study.tune.candidates(method) if self.study.tune else []

    def tuned_in(self, regime: str) -> str:
        """The regime whose tuning a regime uses."""
        return (self.study.tune and self.study.tune.regime) or regime

    def tuning(self) -> list[Point]:
        """The points that tuning needs: none for a method with a single candidate."""
        tune = self.study.tune
        return [
            self._point(regime, method, tune.seed, index, tuning=True)
            for regime, method in self.pairs
            if tune and self.tuned_in(regime) == regime and len(self.candidates(method)) > 1
            for index in range(len(self.candidates(method)))
        ]

    def finals(self, chosen: Mapping[Pair, int]) -> list[Point]:
        """The points that count, a whole comparison for each seed in turn.

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
        return Point(regime, method, seed, index if tuning else None, settings, workload)

    def _load(self, regime: str, method: str, candidate: Settings) -> Workload:
        own = {"algorithm.name": method, **self.study.methods[method]}
        layers = (self.study.set, self.study.regimes[regime], own, candidate)
        overrides = [f"{key}={_as_yaml(value)}" for layer in layers for key, value in layer.items()]
        name = f"{self._where}: regime {regime}, method {method}"
        try:
            with _without_notes():
                workload = load_workload(self.base, overrides)
        except InputError as error:
            raise InputError(f"{name}: {str(error).removeprefix(f'{self.base}: ')}") from error
        axes = self.study.tune.methods.get(method, {}) if self.study.tune else {}
        for key in (*own, *axes):
            section, _, rest = key.partition(".")
            known = type(getattr(workload, section)).model_fields if section in {"algorithm", "model"} else {}
            if rest and known and rest.partition(".")[0] not in known:
                kind = getattr(workload, section).name
                raise InputError(f"{name}: {key}: is not a key of {kind}; known: {', '.join(known)}")
        return workload


def load_study(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a study file with `KEY=VALUE` overrides of its keys.

    Raises:
        InputError: the file, its base workload or one of its points is wrong.
    """
    content = read_yaml(path)
    for setting in overrides:
        _override(content, setting)
    study = parse_section(Study, content, f"{path}: ")
    base = path.parent / study.workload.expanduser()
    load_workload(base)  # so that what is wrong with the base itself is said of it
    return Plan(study, base, str(path))


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
