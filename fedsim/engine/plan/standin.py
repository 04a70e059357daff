"""Hosts that train nothing, to measure what calling hosts and adding up their sums costs; imports no torch."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from fedsim.engine.host.merging import PartialSum, Sums

_GRID = 40


@dataclass(frozen=True, kw_only=True)
class Work:
    """The message to stand-ins."""

    seconds: tuple[float, ...] = (0.0,)
    """How long each stand-in takes, by its number."""
    pieces: int = 1
    """Of its answer, before the rows."""

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """The same for all."""
        return self


@dataclass(kw_only=True)
class Piece:
    """A piece of a stand-in's answer, with what the driver reads of a `Reply` before the sums."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)
    sums: Sums = field(default_factory=dict)


class StandIn:
    """Answers like a `Host` that trains its clients: that it is at work, rows, and a partial sum."""

    def __init__(self, number: int, size: int, clients: int = 1) -> None:
        """Draw its sum.

        Args:
            number: Which stand-in this is; its sum depends on it.
            size: Elements of its sum.
            clients: Rows that it reports.
        """
        self._number, self._clients = number, clients
        draws = np.random.default_rng(number).uniform(-0.1, 0.1, size)
        self._sums = {"shared": PartialSum(total=np.round(draws * 2.0**_GRID) / 2.0**_GRID, grid=_GRID, bound=0.1)}

    def handle(self, work: Work) -> Iterator[Piece]:
        """Take as long as it should."""
        for _ in range(work.pieces):
            yield Piece()
        time.sleep(work.seconds[self._number % len(work.seconds)])
        yield Piece(rows=[{"client": f"{self._number}.{at}"} for at in range(self._clients)])

    def partial_sums(self) -> Sums:
        """The sum of the last work, the same every time."""
        return self._sums
