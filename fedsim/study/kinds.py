"""The kinds of study: each defines what a base workload is swept over, as regimes of dotted keys and values."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from fedsim.core.section import FolderPath, Name, Section, Text, distinct
from fedsim.core.text import value_text
from fedsim.study.axes import Axes, Settings, alike, product, size
from fedsim.study.endpoint import Endpoint
from fedsim.study.tune import Seed, Tune

Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(distinct)]

_MOST_RUNS = 10_000
_SECTIONS = ("federation", "model", "algorithm", "training", "engine", "metrics", "time")
BASE = "base"
"""The regime that all others of an ablation with `vary: one` differ from in one key."""
_CUT, _MULTIPLY = "federation.clients", "federation.sites.0.count"


class Study(Section, ABC):
    """Methods, regimes and seeds that a base workload is run with; a subclass is a kind of study."""

    needs_ray: ClassVar[bool] = False
    """Whether points must run on Ray, because a serial run has one core."""
    has_floor: ClassVar[bool] = False
    """Whether a bare PyTorch loop is timed after every round of a point."""
    measures_memory: ClassVar[bool] = True
    """Whether memory is a result, so that every point needs a separate process."""

    name: Name = Field(description="Name of the study; the default folder is studies/NAME.")
    kind: str = Field(description="Its kind.")
    workload: FolderPath = Field(description="Base workload file, relative to the study file.")
    set: Settings = Field(default_factory=dict, description="Overrides of the base for every point, by dotted key.")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(distinct)] = Field(
        description="Each is a repetition with a separate split and start."
    )
    methods: dict[Name, Settings] = Field(
        min_length=1, description="Overrides by label; algorithm.name defaults to the label."
    )
    reference: Name | None = Field(
        None, description="Method that paired differences refer to; default fedmri, or the first one."
    )
    tune: Tune | None = Field(None, description="Settings to choose before the seeds are run.")
    folds: int | None = Field(
        None,
        ge=2,
        le=1000,
        description="Groups that the subjects of each site are dealt into: each method is run once per seed and group, "
        "with the group as test, so that every subject is tested exactly once per seed. Settings are tuned for each "
        "group anew, without its test subjects. Default: each seed divides the subjects anew, by the shares of split.",
    )
    endpoint: Endpoint | None = Field(
        None, description="What methods are judged by; a study that has begun keeps it. Default: nothing in particular."
    )

    @abstractmethod
    def sweep(self) -> dict[str, Settings]:
        """The overrides of each regime, by its label."""

    def axes_of(self, regime: str) -> dict[str, Any]:
        """A regime's values on the study's axes, by dotted key, or as `nodes` or `cores`."""
        return self.sweep()[regime]

    @property
    def base(self) -> dict[str, Any]:
        """Where one key is varied at a time, the values at which the others stand, as in `axes_of`; else empty."""
        return {}

    @property
    def against(self) -> str:
        """The method that differences refer to."""
        return self.reference or ("fedmri" if "fedmri" in self.methods else next(iter(self.methods)))

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        if self.reference is not None and self.reference not in self.methods:
            raise ValueError(f"reference: {self.reference!r} is not one of methods ({', '.join(self.methods)})")
        self._check_tune()
        self._check_size()
        for where, settings in self._all_settings():
            if self.folds and any(key.startswith("federation.folds") for key in settings):
                raise ValueError(f"{where}: federation.folds is set by folds; leave it out")
            if "seed" in settings:
                raise ValueError(f"{where}: seed cannot be overridden; list seeds under seeds")
            bare = [key for key in settings if key in _SECTIONS]
            if bare:
                raise ValueError(f"{where}: {bare[0]} would replace the whole section; write {bare[0]}.KEY: VALUE")
        return self

    def _check_tune(self) -> None:
        if self.tune is None:
            return
        if self.tune.seed in self.seeds:
            raise ValueError(f"tune.seed: {self.tune.seed} is one of seeds; tuning needs a separate seed")
        regimes = self.sweep()
        if self.tune.regime is not None and self.tune.regime not in regimes:
            raise ValueError(f"tune.regime: {self.tune.regime!r} is not one of regimes ({', '.join(regimes)})")
        for label in self.tune.methods:
            if label not in self.methods:
                raise ValueError(f"tune.methods: {label!r} is not one of methods ({', '.join(self.methods)})")

    def _check_size(self) -> None:
        tuning = sum(map(self.tune.runs, self.methods)) if self.tune else 0
        folds = self.folds or 1
        runs = folds * self._regime_count() * (tuning + len(self.methods) * len(self.seeds))
        if runs > _MOST_RUNS:
            raise ValueError(
                f"methods, regimes, seeds, folds and tune make more than {_MOST_RUNS:,} runs; split the study"
            )

    def _regime_count(self) -> int:
        return len(self.sweep())

    def _all_settings(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield "set", self.set
        yield from ((f"methods.{label}", settings) for label, settings in self.methods.items())
        if self.tune is not None:
            yield "tune.grid", self.tune.grid
            yield "tune.space", self.tune.space
            yield from ((f"tune.methods.{label}", axes) for label, axes in self.tune.methods.items())


class Compare(Study):
    """Methods against a reference, seed by seed, in explicitly listed regimes."""

    measures_memory: ClassVar[bool] = False

    kind: Literal["compare"] = Field("compare", description="compare: methods against a reference, seed by seed.")
    regimes: dict[Name, Settings] = Field({"all": {}}, min_length=1, description="Overrides by label.")

    def sweep(self) -> dict[str, Settings]:
        """The regimes of the file."""
        return self.regimes

    def axes_of(self, regime: str) -> dict[str, Any]:
        """Empty: regimes have labels, not axes."""
        return {}

    def _all_settings(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from super()._all_settings()
        yield from ((f"regimes.{label}", settings) for label, settings in self.regimes.items())


class Ablation(Study):
    """Values of some keys: every combination, or one key varied at a time."""

    kind: Literal["ablation"] = Field("ablation", description="ablation: values of some keys.")
    axes: Axes = Field(min_length=1, description="Values to try, by dotted workload key.")
    vary: Literal["together", "one"] = Field(
        "together",
        description="together: every combination of the values is run. one: one key at a time, from the base, in which "
        "every key has its first value.",
    )

    def sweep(self) -> dict[str, Settings]:
        """One regime per combination, named by its values; with `vary: one` named by the value that is not the first.

        Of two that have one name, the last.
        """
        return {self._name(settings): settings for settings in self._combinations()}

    def axes_of(self, regime: str) -> dict[str, Any]:
        """A combination's values, by dotted key; as text where no column of a table could hold all of an axis."""
        values = self.sweep()[regime]
        return {key: value if alike(self.axes[key]) else value_text(value) for key, value in values.items()}

    @property
    def base(self) -> dict[str, Any]:
        """The values at which keys stand while another is varied."""
        return self.axes_of(BASE) if self.vary == "one" else {}

    def _combinations(self) -> list[Settings]:
        if self.vary == "together":
            return product(self.axes)
        first = {key: values[0] for key, values in self.axes.items()}
        return [first, *({**first, key: value} for key, values in self.axes.items() for value in values[1:])]

    def _name(self, settings: Settings) -> str:
        if self.vary == "together":
            return _label(settings)
        return _label({key: value for key, value in settings.items() if value != self.axes[key][0]}) or BASE

    @model_validator(mode="after")
    def _distinct(self) -> "Ablation":
        labels = Counter(map(self._name, self._combinations()))
        twice = [label for label, count in labels.items() if count > 1]
        if twice:
            raise ValueError(f"axes: two combinations are both called {twice[0]}; values must differ as text")
        return self

    def _regime_count(self) -> int:
        return size(self.axes) if self.vary == "together" else 1 + sum(len(values) - 1 for values in self.axes.values())

    def _all_settings(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from super()._all_settings()
        yield "axes", self.axes


class ClientCount(Study):
    """The number of clients, with all data divided among them or with sites added in proportion."""

    kind: Literal["client-count"] = Field("client-count", description="client-count: the number of clients.")
    clients: Counts = Field(description="Numbers of clients.")
    data: Literal["total", "per_client"] = Field(
        "total",
        description="What is held fixed. total: all data, sites divided into more clients (federation.clients); "
        "per_client: the data per client, with more copies of the first site (federation.sites.0.count).",
    )
    key: Text | None = Field(None, description="Another workload key to set to the number of clients.")

    def sweep(self) -> dict[str, Settings]:
        """One regime per number."""
        key = self.key or (_CUT if self.data == "total" else _MULTIPLY)
        return {f"clients-{count}": {key: count} for count in self.clients}

    def axes_of(self, regime: str) -> dict[str, Any]:
        """Empty: results.parquet has the number in `clients`."""
        return {}


class Scaling(Study):
    """The number of cores or nodes, with all work divided among them or with clients added in proportion."""

    needs_ray: ClassVar[bool] = True
    has_floor: ClassVar[bool] = True

    cores: Counts | None = Field(None, description="Numbers of cores; speed-ups are relative to the first.")
    nodes: Counts | None = Field(None, description="Numbers of Ray nodes; speed-ups are relative to the first.")

    def sweep(self) -> dict[str, Settings]:
        """One regime per number."""
        unit, counts = ("cores", self.cores) if self.cores else ("nodes", self.nodes)
        return {f"{unit}-{count}": {f"engine.{unit}": count, **self._work(count)} for count in counts or ()}

    def axes_of(self, regime: str) -> dict[str, Any]:
        """The unit, cores or nodes, and the numbers."""
        unit, _, count = regime.partition("-")
        return {unit: int(count)}

    def _work(self, count: int) -> Settings:
        """Further overrides that a number needs."""
        return {}

    @model_validator(mode="after")
    def _one_unit(self) -> "Scaling":
        if (self.cores is None) == (self.nodes is None):
            raise ValueError(f"{self.kind}: give either cores or nodes, a list of numbers")
        return self


class StrongScaling(Scaling):
    """The same work on more cores or nodes."""

    kind: Literal["scaling-strong"] = Field("scaling-strong", description="scaling-strong: the same work on more.")


class WeakScaling(Scaling):
    """Work in proportion to the number of cores or nodes."""

    kind: Literal["scaling-weak"] = Field("scaling-weak", description="scaling-weak: work in proportion to workers.")
    clients: Count = Field(description="Clients per core or node.")
    key: Text = Field(_MULTIPLY, description="The workload key that sets the number of clients.")

    def _work(self, count: int) -> Settings:
        return {self.key: count * self.clients}


KINDS: dict[str, type[Study]] = {
    "compare": Compare, "ablation": Ablation, "client-count": ClientCount,
    "scaling-strong": StrongScaling, "scaling-weak": WeakScaling,
}  # fmt: skip
"""Kinds of study by their name in study files, `kind`."""


def _label(settings: Settings) -> str:
    """The folder name of a combination: the last parts of its keys, with their values."""
    parts = (f"{key.rpartition('.')[2]}-{value}" for key, value in settings.items())
    return re.sub(r"[^A-Za-z0-9_-]+", "_", "_".join(parts).replace(".", "p"))[:64].strip("_-")
