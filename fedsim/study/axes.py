"""Settings of a workload by dotted key, and the values to try for some of them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from fedsim.workload.old_keys import with_current_settings

Settings = Annotated[
    dict[str, Any],
    BeforeValidator(lambda value: {} if value is None else value),
    AfterValidator(with_current_settings),
]
"""Dotted keys of a workload with their values."""
Axes = Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], AfterValidator(with_current_settings)]
"""Dotted keys of a workload with the values to try."""


def size(axes: Mapping[str, Sequence[Any]]) -> int:
    """The number of combinations."""
    return math.prod(map(len, axes.values()))


def alike(values: Sequence[Any]) -> bool:
    """Whether a column of a table can hold all of some values: numbers, text, or true and false; any may be null."""
    kinds = {type(value) for value in values if value is not None}
    return kinds <= {int, float} or kinds in ({str}, {bool})


def product(axes: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Every combination; that of no axes is empty."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
