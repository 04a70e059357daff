"""The section `time`: how long clients take in simulated time, when they are available, and whom the server waits for.

The formulas, with their sources, are in docs/time.md.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fedsim.core.section import FolderPath, Section

_FORMS = "a number from 1e-9 to 1e12, [low, high], or {lognormal: {median: like a number, sigma: 0 to 10}}"


def _a_speed(given: Any) -> Any:  # noqa: ANN401 - whatever a file says
    """What was given, if it is a speed that sites can have."""
    match given:
        case [low, high] if _positive(low) and _positive(high) and low <= high:
            return given
        case {"lognormal": {"median": median, "sigma": sigma, **others}, **more} if not others and not more:
            fits = _positive(median) and _number(sigma) and 0 <= sigma <= 10
        case _:
            fits = _positive(given)
    if not fits:
        raise ValueError(f"must be {_FORMS}, not {given!r:.60}")
    return given


def _number(given: Any) -> bool:  # noqa: ANN401 - whatever a file says
    return isinstance(given, int | float) and not isinstance(given, bool)


def _positive(given: Any) -> bool:  # noqa: ANN401 - whatever a file says
    return _number(given) and 1e-9 <= given <= 1e12


Distribution = dict[Literal["lognormal"], dict[Literal["median", "sigma"], float]]
Speed = Annotated[float | tuple[float, float] | Distribution, BeforeValidator(_a_speed)]
"""The same for all sites, [low, high] drawn log-uniform for each client, or a distribution that each draws from."""
Share = Annotated[float, Field(gt=0, le=1)]


def draw_speed(speed: Speed, uniform: float, normal: float) -> float:
    """A client's speed, in the unit of the key.

    Args:
        speed: What the key says.
        uniform: Drawn uniform from [0, 1), for a range.
        normal: Drawn from the standard normal distribution, for a distribution.
    """
    if isinstance(speed, tuple):
        low, high = speed
        return float(low * (high / low) ** uniform)
    if isinstance(speed, dict):
        return float(speed["lognormal"]["median"] * math.exp(speed["lognormal"]["sigma"] * normal))
    return speed


class Compute(Section):
    """How fast clients train."""

    samples_per_s: Speed = Field(
        description="Training slices that a client passes through its network in a second: a number, [low, high] "
        "drawn log-uniform for each client, or {lognormal: {median, sigma}}; 1e-9 to 1e12, sigma to 10.")  # fmt: skip


class Shifts(Section):
    """When a client is available: in a window of its own in every period."""

    share: Share | tuple[Share, Share] = Field(
        1.0, description="Share of the period that a client is available; [low, high] is drawn uniform for each client."
    )
    period_h: float | None = Field(
        None, ge=1e-3, le=1e6, description="Period [h] of the shifts, default 24; the windows of a trace return "
        "after it, default never.")  # fmt: skip

    @model_validator(mode="after")
    def _ascending(self) -> "Shifts":
        if isinstance(self.share, tuple) and self.share[0] > self.share[1]:
            raise ValueError(f"share: {list(self.share)} must be [low, high] with low <= high")
        return self

    @model_validator(mode="after")
    def _of_a_share(self) -> "Shifts":
        if self.period_h is not None and not {"share", "trace"} & self.model_fields_set:
            raise ValueError("period_h: says nothing without a share of it; set share, too")
        return self


class Available(Shifts):
    """When clients are available: shifts, or the windows of a trace."""

    trace: FolderPath | None = Field(
        None, description="Table (.csv or .parquet) of windows in which clients are available, instead of share: "
        "client, from_s, to_s [s]; beside the workload. Clients that it does not name always are.")  # fmt: skip

    @model_validator(mode="after")
    def _one_of_them(self) -> "Available":
        if self.trace is not None and "share" in self.model_fields_set and self.share != 1:
            raise ValueError("trace: says when clients are available, and share does too; leave one of them out")
        if self.trace is not None and self.trace.suffix.lower() not in {".csv", ".parquet"}:
            raise ValueError(f"trace: {self.trace}: must be a .csv or .parquet file")
        return self


class SiteTime(Section):
    """A site's overrides of simulated time; unset keys are the workload's."""

    compute: Compute | None = Field(None, description="How fast its clients train.")
    uplink_mbps: Speed | None = Field(None, description="Its line to the server [Mbit/s].")
    downlink_mbps: Speed | None = Field(None, description="Its line from the server [Mbit/s].")
    latency_s: float | None = Field(None, ge=0, le=1e6, description="Seconds of a turn besides work and transfers.")
    available: Shifts | None = Field(None, description="When its clients are available.")
    jitter: float | None = Field(
        None, ge=0, le=10, description="Standard deviation of the logarithm of its turns' durations."
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="Probability that its clients leave during a turn.")


class Staleness(Section):
    """The weight s(tau) of an upload that is tau server steps old."""

    kind: Literal["constant", "polynomial", "hinge"] = Field(
        "polynomial", description="constant: 1; polynomial: (1 + tau)^-power; hinge: 1 up to `after`, then "
        "1 / (1 + slope (tau - after)).")  # fmt: skip
    power: float = Field(0.5, ge=0, le=100, description="Of polynomial.")
    slope: float = Field(10.0, ge=0, le=1e6, description="Of hinge.")
    after: int = Field(4, ge=0, description="Of hinge: server steps without loss of weight.")

    def factor(self, tau: int) -> float:
        """s(tau), from 0 to 1, for a staleness of tau >= 0 server steps; s(0) = 1.

        Sources: FedAsync (Xie et al., arXiv 1903.03934), all three; FedBuff (Nguyen et al., AISTATS 2022): power 0.5.
        """
        if self.kind == "polynomial":
            return float((1.0 + tau) ** -self.power)
        if self.kind == "hinge" and tau > self.after:
            return 1.0 / (1.0 + self.slope * (tau - self.after))
        return 1.0


class Hierarchy(Section):
    """Regions with servers of their own, which average among themselves now and then."""

    regions: int = Field(ge=1, description="Number of regions: contiguous, about equal parts of the federation.")
    rounds_per_sync: int = Field(1, ge=1, description="Rounds between averages of the regions' servers.")

    def region(self, place: int, clients: int) -> int:
        """The region, from 0, of the client at a place, from 0, in a federation of `clients`."""
        return place * self.regions // clients


class Time(Section):
    """Simulated time; nothing waits for it."""

    mode: Literal["synchronous", "deadline", "buffered", "asynchronous"] = Field(
        "synchronous", description="Whom the server waits for. synchronous: all that were drawn; deadline: those in "
        "time; buffered: the first `buffer` at work (FedBuff); asynchronous: each alone (FedAsync).")  # fmt: skip
    compute: Compute | None = Field(None, description="How fast clients train; default in no time.")
    uplink_mbps: Speed | None = Field(
        None, description="A client's line to the server [Mbit/s], given as compute.samples_per_s; default in no time."
    )
    downlink_mbps: Speed | None = Field(None, description="A client's line from the server [Mbit/s], likewise.")
    latency_s: float = Field(0.0, ge=0, le=1e6, description="Seconds of a turn besides work and transfers.")
    jitter: float = Field(
        0.0, ge=0, le=10, description="Standard deviation of the logarithm of a turn's duration, drawn for each turn."
    )
    available: Available = Field(default_factory=Available, description="When clients are available.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Probability that a client leaves during a turn, at a uniform point of it."
    )
    deadline_s: float | None = Field(
        None, gt=0, le=1e12, description="Mode deadline: seconds after which the server goes on with those it has."
    )
    over_select: float = Field(
        1.0,
        ge=1,
        le=100,
        description="Mode deadline: draws this times the cohort, and takes as many as a cohort, the first.",
    )
    buffer: int | None = Field(
        None, ge=1, description="Mode buffered: uploads that the server steps with, at most the concurrency."
    )
    concurrency: int | None = Field(
        None, ge=1, description="Modes buffered and asynchronous: clients at work at any time; default the cohort."
    )
    staleness: Staleness = Field(
        default_factory=Staleness, description="Modes buffered and asynchronous: weight of a stale upload."
    )
    mixing: float = Field(0.6, gt=0, le=1, description="Mode asynchronous: weight of a fresh upload, FedAsync's alpha.")
    hierarchy: Hierarchy | None = Field(None, description="Regions, in mode synchronous; default none.")

    @model_validator(mode="after")
    def _has_what_its_mode_needs(self) -> "Time":
        if self.mode == "deadline" and self.deadline_s is None:
            raise ValueError("deadline_s: mode deadline needs it; set the seconds that the server waits")
        if self.mode == "buffered" and self.buffer is None:
            raise ValueError("buffer: mode buffered needs it; set the number of uploads of a server step")
        if self.hierarchy is not None and self.mode != "synchronous":
            raise ValueError(f"hierarchy: is for mode synchronous, not {self.mode}; set time.mode, or leave it out")
        return self

    @property
    def overlaps(self) -> bool:
        """Whether clients of several server steps are at work at once."""
        return self.mode in {"buffered", "asynchronous"}

    @property
    def apart(self) -> bool:
        """Whether clients of a round may begin with different states of a server."""
        return self.overlaps or (self.hierarchy is not None and self.hierarchy.regions > 1)

    @property
    def uploads(self) -> int:
        """Uploads that the server steps with, in the modes in which clients overlap."""
        return self.buffer if self.mode == "buffered" and self.buffer is not None else 1

    def per_server(self, clients: int) -> int:
        """How many of the clients of a round send to one server: all, or about as many to that of each region."""
        return math.ceil(clients / self.hierarchy.regions) if self.hierarchy else clients

    @property
    def takes_time(self) -> bool:
        """Whether a turn takes any."""
        return any((self.compute, self.uplink_mbps, self.downlink_mbps, self.latency_s))

    def with_trace(self, trace: Path) -> "Time":
        """Simulated time with its trace in another place."""
        return self.model_copy(update={"available": self.available.model_copy(update={"trace": trace})})

    def of_site(self, own: SiteTime | None) -> "Time":
        """Simulated time with a site's overrides."""
        if own is None:
            return self
        given = {key: value for key in SiteTime.model_fields if (value := getattr(own, key)) is not None}
        return self.model_copy(update=given)
