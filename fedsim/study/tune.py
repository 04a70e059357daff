"""Tuning: how a study chooses settings for each method before its seeds run, from a grid or by a search."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from fedsim.core.section import Name, Section, refuse
from fedsim.study.axes import Axes, Settings, product, size
from fedsim.study.space import Range, Space, check_keys, ordered, samples
from fedsim.workload.schema import Workload

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Candidate(NamedTuple):
    """Settings that tuning tries for a method."""

    number: int
    """Its place among the method's candidates."""
    settings: Settings


UNTUNED = Candidate(0, {})
"""What a method without tuning is run with."""


class Pruner(Section):
    """When trials that do badly end early."""

    kind: str = Field(description="Its kind.")
    grace: int = Field(ge=1, description="Round at which a trial is first judged; a multiple of metrics.every.")

    def rungs(self, rounds: int) -> list[int]:
        """The rounds at which a trial of some rounds is judged."""
        return list(range(self.grace, rounds, self.grace))


class Asha(Pruner):
    """Successive halving, asynchronous: of the trials judged at a rung, the best 1 / factor go on.

    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020. Of fewer than `factor` trials, those
    go on that are the best so far.
    """

    kind: Literal["asha"] = Field("asha", description="asha: the best of those that came as far go on.")
    factor: int = Field(
        4, ge=2, description="One in `factor` trials that reach a rung goes on; the next is `factor` times as late."
    )

    def rungs(self, rounds: int) -> list[int]:
        """Grace, grace x factor, grace x factor^2, ..."""
        found, rung = [], self.grace
        while rung < rounds:
            found.append(rung)
            rung *= self.factor
        return found


class Median(Pruner):
    """A trial goes on unless its best value is below the median of all before it, at every multiple of grace."""

    kind: Literal["median"] = Field("median", description="median: those below the median of the others end.")


class Tune(Section):
    """Settings that are chosen for each method by validation PSNR, on a separate seed, before the study's seeds run.

    Every seed divides the subjects anew, so a validation subject of the tuning seed may be a test subject of another.
    In a study with folds it cannot: tuning never sees the test subjects of the fold it tunes for.
    """

    seed: Seed = Field(description="Seed of the tuning runs and of what a search draws; not one of the study's.")
    regime: Name | None = Field(None, description="Tune in this regime only, for all; default: in each separately.")
    sampler: Literal["grid", "tpe", "random"] = Field(
        "grid",
        description="grid: every combination of the values. tpe, random: a search, which draws trials from space.",
    )
    grid: Axes = Field(default_factory=dict, description="Values to try for every method, by dotted workload key.")
    space: Space = Field(default_factory=dict, description="What a search draws for every method, by dotted key.")
    methods: dict[Name, Space] = Field(
        default_factory=dict, description="Additional keys for single methods: lists of values, or of a search ranges."
    )
    trials: int | None = Field(None, ge=1, description="Trials of a search, for each method alike.")
    pruner: Annotated[Asha | Median, Field(discriminator="kind")] | None = Field(
        None, description="When trials of a search that do badly end early; null: never."
    )

    @property
    def searches(self) -> bool:
        """Whether settings are searched for, rather than taken from a grid."""
        return self.sampler != "grid"

    def axes(self, method: str) -> dict[str, Sequence[Any]]:
        """A grid's values for a method, by dotted key."""
        return {**self.grid, **{key: range_.values or () for key, range_ in self.methods.get(method, {}).items()}}

    def space_of(self, method: str) -> dict[str, Range]:
        """What a search draws for a method, in the order of drawing."""
        return ordered({**self.space, **self.methods.get(method, {})})

    def candidates(self, method: str) -> list[Settings]:
        """Every combination of the method's values in a grid; empty if there are none to choose from."""
        axes = {} if self.searches else self.axes(method)
        return product(axes) if axes else []

    def runs(self, method: str) -> int:
        """The number of tuning runs of a method, at most."""
        if not self.searches:
            return size(self.axes(method))
        return (self.trials or 0) if self.space_of(method) else 0

    def samples(self, method: str) -> list[Settings]:
        """Settings of a method to validate beforehand: the whole grid, or what stands for a space."""
        return list(samples(self.space_of(method))) if self.searches else self.candidates(method)

    @model_validator(mode="after")
    def _of_its_sampler(self) -> "Tune":
        if not self.searches:
            self._check_grid()
            return self
        if self.grid:
            refuse(Tune, "grid", f"belongs to sampler grid; with sampler {self.sampler}, write its lists under space")
        if self.trials is None:
            refuse(Tune, "trials", f"is required with sampler {self.sampler}")
        if not self.space and not any(self.methods.values()):
            refuse(Tune, "space", f"is required with sampler {self.sampler}")
        self._check_space("space", "", self.space, self.space)
        for label, own in self.methods.items():
            self._check_space("methods", f"{label}: ", own, {**self.space, **own})
        return self

    def _check_grid(self) -> None:
        for key in ("space", "trials", "pruner"):
            if getattr(self, key):
                refuse(Tune, key, "belongs to a search; add sampler: tpe or random, or give lists under grid")
        for label, own in self.methods.items():
            for key, range_ in own.items():
                if range_.values is None or range_.when:
                    refuse(Tune, "methods", f"{label}: {key}: a grid needs a list of values; or add sampler: tpe")

    @staticmethod
    def _check_space(key: str, label: str, own: Space, whole: Space) -> None:
        try:
            check_keys(own)
            ordered(whole)
        except ValueError as error:
            refuse(Tune, key, f"{label}{error}")

    def check_budgets(self, workloads: Mapping[str, Workload]) -> None:
        """Refuse methods of unlike numbers of rounds, and a pruner whose rungs are not validated rounds.

        Args:
            workloads: Of each method.

        Raises:
            ValueError: naming the method and the key.
        """
        most = max(workload.training.rounds for workload in workloads.values())
        for method, workload in workloads.items():
            rounds, every = workload.training.rounds, workload.metrics.every
            if rounds != most:
                what = f"is {rounds}, and {most} for another method; a search gives all the same budget"
                raise ValueError(f"method {method}: training.rounds: {what}")
            if self.pruner and self.pruner.grace >= rounds:
                what = f"{self.pruner.grace} must be less than training.rounds, {rounds}"
                raise ValueError(f"method {method}: tune.pruner.grace: {what}")
            if self.pruner and (not every or self.pruner.grace % every):
                what = f"a multiple of metrics.every, {every}" if every else "validated; set metrics.every, which is 0"
                raise ValueError(f"method {method}: tune.pruner.grace: round {self.pruner.grace} must be {what}")
