"""The space that a search draws settings from: what each key may be, and when it is set at all."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from fedsim.core.section import Section, refuse
from fedsim.study.axes import Settings
from fedsim.workload.old_keys import with_current_settings

_SECTIONS = ("algorithm", "model", "training", "time")
_FIXED = ("algorithm.name", "training.rounds", "training.early_stopping", "training.init")
_BETWEEN = 0.382  # of the way from low to high


class Range(Section):
    """What a key may be: one of some values, or a number between two ends."""

    values: tuple[Any, ...] | None = Field(None, min_length=1, description="The values; a bare list says the same.")
    low: float | int | None = Field(None, description="Least number.")
    high: float | int | None = Field(None, description="Largest number.")
    log: bool = Field(False, description="Draw evenly in the logarithm.")
    step: float | int | None = Field(
        None, gt=0, description="Draw low, low + step, ... only; if low and step are whole, so are the numbers."
    )
    when: Settings = Field(
        default_factory=dict,
        description="Set the key only with these values of other keys of the space; a value or a list of values each.",
    )

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.step, int)

    def samples(self) -> list[Any]:
        """Values that stand for all: each of them, or the ends and a number between them."""
        if self.values is not None:
            return list(self.values)
        low, high = self.ends
        if self.step is not None:
            return [low, high]
        between = low ** (1 - _BETWEEN) * high**_BETWEEN if self.log else low + _BETWEEN * (high - low)
        return [low, high, between]

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest number."""
        assert self.low is not None
        assert self.high is not None
        return (self.low, self.high) if self.whole else (float(self.low), float(self.high))

    @model_validator(mode="after")
    def _one_kind(self) -> "Range":
        numbers = [key for key in ("low", "high", "step") if getattr(self, key) is not None] + ["log"] * self.log
        if self.values is not None and numbers:
            refuse(Range, numbers[0], "give either values, or low and high")
        if self.values is None and (self.low is None or self.high is None):
            raise ValueError("must be a list of values, or {low: ..., high: ...}")
        if self.values is None:
            self._check_numbers(*self.ends)
        return self

    def _check_numbers(self, low: float, high: float) -> None:
        if low >= high:
            refuse(Range, "low", f"{self.low} must be less than high, {self.high}")
        if self.log and low <= 0:
            refuse(Range, "low", f"{self.low} has no logarithm; with log: true it must be above 0")
        if self.log and self.step is not None and not (self.whole and self.step == 1):
            refuse(Range, "step", "with log: true it can only be 1, for whole numbers; leave it out")
        if self.step is not None:
            steps = (high - low) / self.step
            if math.isinf(steps) or not math.isclose(steps, round(steps), abs_tol=1e-9):
                refuse(Range, "step", f"no number of steps of {self.step} leads from {self.low} to {self.high}")

    @model_serializer(mode="wrap")
    def _bare_list(self, write: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401 - what a YAML file holds
        written = write(self)
        return list(self.values) if self.values is not None and not self.when else written


def _from_list(value: object) -> object:
    return {"values": value} if isinstance(value, list | tuple) else value


Space = Annotated[dict[str, Annotated[Range, BeforeValidator(_from_list)]], AfterValidator(with_current_settings)]
"""Dotted keys of a workload with what each may be."""


def ordered(space: Mapping[str, Range]) -> dict[str, Range]:
    """A space in the order to draw in, which the order in the file does not change: by name, conditions first.

    Raises:
        ValueError: a key depends on what is not in the space, on a value that never occurs, or on itself.
    """
    for key, range_ in space.items():
        _check_conditions(key, range_, space)
    drawn: dict[str, Range] = {}
    while len(drawn) < len(space):
        ready = [key for key in sorted(space) if key not in drawn and space[key].when.keys() <= drawn.keys()]
        if not ready:
            raise ValueError(f"{min(space.keys() - drawn.keys())}: when depends on itself")
        drawn[ready[0]] = space[ready[0]]
    return drawn


def _check_conditions(key: str, range_: Range, space: Mapping[str, Range]) -> None:
    for other in range_.when:
        if other not in space:
            raise ValueError(f"{key}: when: {other} is not a key of the space")
        values = space[other].values
        if values is None:
            raise ValueError(f"{key}: when: {other} has no list of values to depend on")
        if not wanted(range_, other):
            raise ValueError(f"{key}: when: {other}: needs a value, or a list of at least one")
        for value in wanted(range_, other):
            if value not in values:
                raise ValueError(f"{key}: when: {other} is never {value!r}; it is one of {', '.join(map(str, values))}")


def wanted(range_: Range, other: str) -> list[Any]:
    """The values of another key with which a key is set."""
    value = range_.when[other]
    return value if isinstance(value, list) else [value]


def applies(range_: Range, drawn: Mapping[str, Any]) -> bool:
    """Whether a key is set, given what has been drawn before it."""
    return all(other in drawn and drawn[other] in wanted(range_, other) for other in range_.when)


def samples(space: Mapping[str, Range]) -> Iterator[Settings]:
    """Settings in which each key takes each of its samples once, to find out whether a workload takes them."""
    for key in space or [""]:
        for value in space[key].samples() if key else [None]:
            yield _with(space, key, value)


def _with(space: Mapping[str, Range], key: str, value: object) -> Settings:
    """The first sample of every key, but for one key, and those that it depends on."""
    fixed = {key: value}
    pending = [key] if key else []
    while pending:
        range_ = space[pending.pop()]
        fixed |= {other: wanted(range_, other)[0] for other in range_.when}
        pending += range_.when
    drawn: Settings = {}
    for name, range_ in space.items():
        if applies(range_, drawn):
            drawn[name] = fixed[name] if name in fixed else range_.samples()[0]
    return drawn


def check_keys(space: Mapping[str, Range]) -> None:
    """Refuse keys that a search cannot choose: what it is judged by, its budget, and what changes no result.

    Raises:
        ValueError: naming the key.
    """
    for key in space:
        fixed = any(key == one or key.startswith(f"{one}.") for one in _FIXED)
        if fixed or key.partition(".")[0] not in _SECTIONS:
            what = f"may choose keys of {', '.join(_SECTIONS)}, without {', '.join(_FIXED)}"
            raise ValueError(f"{key}: cannot be searched; a search {what}")
