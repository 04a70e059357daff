"""What simulated time knows of each client: how long its turns take, and when it is available."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsim.core.seeds import numpy_stream
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.trace import read_trace
from fedsim.engine.clock.turns import Outcome
from fedsim.engine.clock.windows import ALWAYS, Shifts, Traced, Windows
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Site
from fedsim.workload.time import Speed, Time, draw_speed

_DAY_H = 24.0
_BITS = 8 / 1e6  # Mbit of a byte


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Of one client."""

    seconds: float
    """A turn's duration without jitter: download, work, upload and latency [s]."""
    jitter: float
    """Standard deviation of the logarithm of a turn's duration."""
    dropout: float
    """Probability that it leaves during a turn."""
    windows: Windows


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
        self._names, self._sites = workload.federation.client_names(), workload.federation.expanded_sites()
        self._trace: Mapping[int, Traced] = read_trace(workload.time.available, clients)
        self._known: dict[int, Condition] = {}

    def of(self, place: int) -> Condition:
        """Of the client at a place."""
        if place not in self._known:
            self._known[place] = self._made(place)
        return self._known[place]

    def available(self, place: int, now: float) -> bool:
        """Whether a client is available at a time [s]."""
        return self.of(place).windows.at(now)[0] <= now

    def end(self, place: int, begin: float, number: int) -> tuple[float, Outcome]:
        """When a turn ends, and how, if nobody stops waiting for it.

        Args:
            place: Of the client, which is available then.
            begin: Of the turn [s].
            number: Of the client's turns, from 1: each has its own jitter and dropout.
        """
        of, duration, drop = self.of(place), self.of(place).seconds, math.inf
        if of.jitter or of.dropout:
            rng = self._stream("turn", place, number)
            duration *= math.exp(of.jitter * rng.standard_normal())
            falls, when = rng.random(2)
            drop = begin + when * duration if falls < of.dropout else math.inf
        ends: list[tuple[float, Outcome]] = [
            (begin + duration, "trained"), (drop, "dropped"), (of.windows.at(begin)[1], "unavailable"),
        ]  # fmt: skip
        return min(ends, key=lambda one: one[0])

    def _stream(self, what: str, place: int, *number: int) -> np.random.Generator:
        return numpy_stream(self._workload.seed, "time", what, self._clients.names[place], *number)

    def _made(self, place: int) -> Condition:
        site = self._site(place)
        time = self._time.of_site(site.time if site else None)
        training = self._workload.training_of(site) if site else self._workload.training
        samples = int(self._clients.samples[place]) * training.local_epochs
        up, down = (_BITS * size for size in self._bytes)
        trained = time.compute.samples_per_s if time.compute else None
        seconds = (
            self._seconds("downlink", place, down, time.downlink_mbps)
            + self._seconds("compute", place, samples, trained)
            + self._seconds("uplink", place, up, time.uplink_mbps)
        )
        return Condition(
            seconds=seconds + time.latency_s,
            jitter=time.jitter,
            dropout=time.dropout,
            windows=self._windows(place, time, bool(site and site.time and site.time.available)),
        )

    def _site(self, place: int) -> Site | None:
        """The site of a client; None if it pools all of them."""
        if self._workload.algorithm.pools_data:
            return None
        return self._sites.make(self._names.site(place))

    def _seconds(self, what: str, place: int, amount: float, speed: Speed | None) -> float:
        return amount / draw_speed(speed, self._stream(what, place)) if speed is not None else 0.0

    def _windows(self, place: int, time: Time, own: bool) -> Windows:
        """Those of the trace, unless the client's site has shifts of its own."""
        if place in self._trace and not own:
            return self._trace[place]
        share, period = time.available.share, 3600 * (time.available.period_h or _DAY_H)
        if share == 1:
            return ALWAYS
        rng = self._stream("available", place)
        phase = period * rng.random()
        drawn = rng.uniform(*share) if isinstance(share, tuple) else share
        return Shifts(period, period * drawn, phase) if drawn < 1 else ALWAYS
