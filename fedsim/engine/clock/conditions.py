"""What simulated time knows of each client: how long its turns take, and when it is available."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedsim.core.seeds import numpy_stream
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.trace import read_trace
from fedsim.engine.clock.turns import Outcome
from fedsim.engine.clock.windows import ALWAYS, Shifts, Traced, Windows
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Site
from fedsim.workload.time import Shifts as ShiftsSection
from fedsim.workload.time import draw_speed

MOST_IN_VAIN = 100_000
"""Turns of a round that no client finishes before it is given up."""
_FASTEST = -6.0
"""Standard deviations of jitter of the fastest turn to be expected: one in a billion is faster."""
_ROUNDED = 1.01
"""A turn that is 1 % longer than a window still counts as fitting: rounding of times makes less of a difference."""
_DAY_H = 24.0
_BITS = 8 / 1e6  # Mbit of a byte


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Of one client."""

    client: str
    """Its name."""
    seconds: float
    """A turn's duration without jitter: download, work, upload and latency [s]."""
    jitter: float
    """Standard deviation of the logarithm of a turn's duration."""
    dropout: float
    """Probability that it leaves during a turn."""
    windows: Windows

    @cached_property
    def can_finish(self) -> bool:
        """Whether one of MOST_IN_VAIN turns is expected to be finished if all begin with the longest window."""
        fastest = self.seconds * math.exp(_FASTEST * self.jitter)
        return fastest <= _ROUNDED * self.windows.longest and (1 - self.dropout) * MOST_IN_VAIN >= 1


class Conditions:
    """Those of all clients, drawn from the seed and the client when they are asked for."""

    def __init__(self, workload: Workload, clients: Clients, up: float, down: float) -> None:
        """A turn sends `up` and receives `down` bytes.

        Raises:
            InputError: the trace cannot be used.
        """
        assert workload.time is not None
        self._workload, self._clients, self._time = workload, clients, workload.time
        self._bytes = up, down
        names, sites = workload.federation.client_names(), workload.federation.expanded_sites()
        self._sites, self._starts = sites.entries, [names.start(place) for place in sites.starts]
        self._trace: Mapping[int, Traced] = read_trace(workload.time.available, clients)
        self._known: dict[int, Condition] = {}

    def of(self, place: int) -> Condition:
        """Of the client at a place."""
        if place not in self._known:
            self._known[place] = self._made(place)
        return self._known[place]

    def some_can_finish(self, places: Iterable[int]) -> bool:
        """Whether a client at one of these places can finish a turn."""
        return any(self.of(place).can_finish for place in places)

    def available(self, place: int, now: float) -> bool:
        """Whether a client is available at a time [s]."""
        return self.of(place).windows.at(now)[0] <= now

    def end(self, place: int, begin: float, number: int) -> tuple[float, Outcome]:
        """When a turn ends, and how, if the server waits for it.

        Args:
            place: Of the client, which is available then.
            begin: Of the turn [s].
            number: Of the client's turns, from 1: each has its own jitter and dropout.
        """
        of, duration, drop = self.of(place), self.of(place).seconds, math.inf
        if of.jitter or of.dropout:
            rng = self._stream("turn", of.client, number)
            duration *= math.exp(of.jitter * rng.standard_normal())
            falls, when = rng.random(2)
            drop = begin + when * duration if falls < of.dropout else math.inf
        ends: list[tuple[float, Outcome]] = [
            (begin + duration, "trained"), (drop, "dropped"), (of.windows.at(begin)[1], "unavailable"),
        ]  # fmt: skip
        return min(ends, key=lambda one: one[0])

    def _stream(self, what: str, client: str, *number: int) -> np.random.Generator:
        return numpy_stream(self._workload.seed, "time", what, client, *number)

    def _made(self, place: int) -> Condition:
        site, client = self._site(place), self._clients.names[place]
        time = self._time.of_site(site.time if site else None)
        epochs = (site and site.training.local_epochs) or self._workload.training.local_epochs
        rng = self._stream("site", client)
        uniform, normal = rng.random(5).tolist(), rng.standard_normal(3).tolist()
        samples = int(self._clients.samples[place]) * epochs
        amounts = (_BITS * self._bytes[1], samples, _BITS * self._bytes[0])
        speeds = (time.downlink_mbps, time.compute.samples_per_s if time.compute else None, time.uplink_mbps)
        parts = zip(amounts, speeds, uniform[:3], normal, strict=True)
        seconds = sum(amount / draw_speed(speed, *drawn) for amount, speed, *drawn in parts if speed is not None)
        own = site is not None and site.time is not None and site.time.available is not None
        return Condition(
            client=client,
            seconds=seconds + time.latency_s,
            jitter=time.jitter,
            dropout=time.dropout,
            windows=self._trace[place] if place in self._trace and not own else _windows(time.available, *uniform[3:]),
        )

    def _site(self, place: int) -> Site | None:
        """The entry of a client's site; None if it pools all of them."""
        if self._workload.algorithm.pools_data:
            return None
        return self._sites[bisect_right(self._starts, place) - 1]


def _windows(available: ShiftsSection, phase: float, share: float) -> Windows:
    """A client's shifts.

    Args:
        available: As the workload or its site says.
        phase: Drawn uniform from [0, 1): begin of a shift, as a share of the period.
        share: Drawn likewise: where its share is in a range of shares.
    """
    low, high = available.share if isinstance(available.share, tuple) else (available.share, available.share)
    period, length = 3600 * (available.period_h or _DAY_H), low + (high - low) * share
    return Shifts(period, period * length, period * phase) if length < 1 else ALWAYS
