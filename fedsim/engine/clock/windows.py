"""When a client is available, in simulated time [s]."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Window = tuple[float, float]
"""Begin and end of a time in which a client is available [s]; both infinite for never again."""


class Windows(Protocol):
    """The windows of a client."""

    @property
    def longest(self) -> float:
        """Seconds of the longest of them, apart from rounding."""

    def at(self, now: float) -> Window:
        """The window that has begun and not ended at a time, or the next one to begin; its end lies after that time."""


@dataclass(frozen=True)
class Shifts:
    """One window in every period."""

    period: float
    """Seconds."""
    length: float
    """Seconds of a window; less than the period."""
    phase: float
    """Begin of one of the windows [s]."""

    @property
    def longest(self) -> float:
        """Seconds of each."""
        return self.length

    def at(self, now: float) -> Window:
        """The present window or the next."""
        number = math.floor((now - self.phase) / self.period)
        if now >= self.phase + number * self.period + self.length:
            number += 1
        begin = self.phase + number * self.period
        return _told(begin, begin + self.length)


@dataclass(frozen=True)
class Traced:
    """Windows that are listed, once or in every period."""

    begins: Sequence[float]
    """Ascending [s]; below 0 for a window that begins before its period does."""
    ends: Sequence[float]
    """Of each window, before the next begins [s]."""
    period: float = math.inf
    """Seconds after which all return; no window ends later."""

    @property
    def longest(self) -> float:
        """Seconds of the longest."""
        return max(end - begin for begin, end in zip(self.begins, self.ends, strict=True))

    def at(self, now: float) -> Window:
        """The present window or the next."""
        start = 0.0 if math.isinf(self.period) else math.floor(now / self.period) * self.period
        window = bisect_right(self.ends, now, key=lambda end: start + end)
        if window == len(self.ends):
            window, start = 0, start + self.period
        return _told(start + self.begins[window], start + self.ends[window])


def _told(begin: float, end: float) -> Window:
    """A window; never again, if it and all later ones are too short for how exact their times are."""
    return (begin, end) if begin < end else (math.inf, math.inf)


ALWAYS = Traced((-math.inf,), (math.inf,))
