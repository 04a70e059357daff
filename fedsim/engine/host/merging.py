"""Partial sums on their way to the server, and what adds them.

Imports numpy alone, so that a process that only adds stays small. `engine/host/sums.py` makes the terms.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedsim.core.errors import DivergedError, MethodError


@dataclass(frozen=True, kw_only=True)
class PartialSum:
    """An exact sum over some clients."""

    total: NDArray[np.float64]
    """The sum (P,), every value on the grid."""
    grid: int
    """Terms are multiples of 2^-grid."""
    bound: float
    """No partial sum of its terms exceeds it in any element, whatever their order."""


Sums = Mapping[str, PartialSum]
"""Partial sums by upload."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """What was added at one level of the way to the server."""

    bytes: int = 0
    """Partial sums that came in."""
    seconds: float = 0.0
    """Time that they took, over all processes of the level."""

    def __add__(self, other: Self) -> Self:
        return type(self)(bytes=self.bytes + other.bytes, seconds=self.seconds + other.seconds)


Levels = Mapping[str, Level]
"""`node`: hosts' sums, added on their nodes; `group`: nodes' sums, added by one of them; `driver`: what it added."""


@dataclass(frozen=True, kw_only=True)
class Subtotal:
    """What a node, or a group of nodes, hands on."""

    sums: Sums
    levels: Levels


class ExactSum:
    """A running sum of partial sums on one grid: merging them in any order and grouping gives the same bits."""

    def __init__(self, size: int, grid: int = 40) -> None:
        self._sum: NDArray[np.float64] = np.zeros(size)
        self._grid = grid
        self._limit = 2.0 ** (51 - grid)
        self._largest = 0.0  # a bound on every element of the total

    @property
    def total(self) -> NDArray[np.float64]:
        """The sum so far (P,)."""
        return self._sum

    @property
    def partial(self) -> PartialSum:
        """The sum so far, to be merged elsewhere."""
        return PartialSum(total=self.total, grid=self._grid, bound=self._largest)

    @classmethod
    def of(cls, partial: PartialSum) -> Self:
        """A sum that begins with a partial sum."""
        begun = cls(0, partial.grid)
        begun._grow(partial.bound)
        begun._sum = partial.total.copy()
        return begun

    def merge(self, partial: PartialSum) -> None:
        """Add a partial sum made with the same grid.

        Raises:
            DivergedError: the sum may leave the range in which it is exact.
        """
        self._grow(partial.bound)
        self._sum += partial.total

    def _grow(self, by: float) -> None:
        self._largest += by
        if self._largest >= self._limit:
            raise DivergedError(f"a sum over clients may exceed {self._limit:g}, where it is exact; lower the lr")


class Merger:
    """Adds partial sums, upload by upload, as they come."""

    def __init__(self) -> None:
        self._totals: dict[str, ExactSum] = {}

    def add(self, sums: Sums) -> Level:
        """Add the sums of a host or of a node; returns what that took.

        Raises:
            MethodError: they are not as long as the earlier ones.
            DivergedError: a sum may leave the range in which it is exact.
        """
        begun = time.perf_counter()
        for name, partial in sums.items():
            total = self._totals.get(name)
            if total is None:
                self._totals[name] = ExactSum.of(partial)
                continue
            if total.total.size != partial.total.size:
                sizes = f"vectors of {total.total.size} and of {partial.total.size} values as {name!r}"
                raise MethodError(f"clients sent {sizes}; what is summed must be alike")
            total.merge(partial)
        return Level(bytes=size_of(sums), seconds=time.perf_counter() - begun)

    def sums(self) -> dict[str, PartialSum]:
        """The sums so far by upload."""
        return {name: total.partial for name, total in self._totals.items()}


def size_of(sums: Sums) -> int:
    """Size of partial sums [bytes]."""
    return sum(partial.total.nbytes for partial in sums.values())


def together(*levels: Levels) -> dict[str, Level]:
    """What was added in all, by level."""
    names = dict.fromkeys(name for each in levels for name in each)
    return {name: sum((each[name] for each in levels if name in each), Level()) for name in names}
