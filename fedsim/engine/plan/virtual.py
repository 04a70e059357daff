"""What a run will be in simulated time, and what its server keeps for it, by its timetable."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from fedsim.algorithms.learner import Learner
from fedsim.core.errors import InputError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.clock.turns import Outcome, Step, Turn
from fedsim.engine.host.messages import Setup
from fedsim.engine.plan.sizes import traffic_of_zeros
from fedsim.engine.steps.overlapping import most_ahead
from fedsim.workload.schema import Workload

_MOST = 10_000  # turns that are looked at


@dataclass(frozen=True, kw_only=True)
class Virtual:
    """A run in simulated time."""

    rounds: int
    """Number of first rounds that the other figures are of."""
    seconds: float
    """Virtual duration of all rounds, if the others are like these."""
    at_work: float
    """Mean number of clients at work."""
    staleness: float
    """Mean of the uploads that are taken up [server steps]."""
    stalest: int
    """Largest of them [server steps]."""
    shares: dict[Outcome, float]
    """Share of the turns that end so, by outcome."""


@dataclass(frozen=True, kw_only=True)
class Apart:
    """What it takes, at most, that clients of a round begin with different states of the server."""

    others: int = 0
    """States of the server beside its present one, between rounds."""
    read: int = 1
    """States that a broadcast has."""
    sums: int = 1
    """Sums that a call adds up."""
    asked: int
    """Clients that train in a call."""


def apart(workload: Workload, timetable: Timetable | None, state: float) -> Apart:
    """What it takes, by the first rounds.

    Args:
        workload: Settled.
        timetable: Of the run; None without simulated time.
        state: Size of the server's [bytes].
    """
    time, asked, rounds = workload.time, workload.uploads, workload.training.rounds
    if time is None or timetable is None or not time.apart:
        return Apart(asked=asked)
    if time.hierarchy is not None:
        return Apart(
            others=time.hierarchy.regions, read=time.hierarchy.regions, sums=time.hierarchy.regions, asked=asked
        )
    others, together = 0, min(filter(None, (workload.metrics.every, workload.engine.checkpoint_every, rounds)))
    with suppress(InputError):  # of a round that no client finishes: `check_ends` refuses to begin such a run
        for step in _first(timetable, rounds):
            others = max(others, len(step.in_flight))
    sums = min(together, 1 + most_ahead(state))
    asked = min(workload.at_work, sums * asked)
    return Apart(others=others, read=min(others + 1, asked), sums=min(sums, asked), asked=asked)


def held_by(setup: Setup, workload: Workload, clients: Clients, learner: Learner, timetable: Timetable | None) -> Setup:
    """What hosts are made with, and how many states of the server and sums they will hold at once.

    Args:
        setup: Without that.
        workload: Settled.
        clients: The federation's.
        learner: Their working network, as initialised.
        timetable: Of the run; None without simulated time.
    """
    if timetable is None or workload.time is None:
        return setup
    taken_up = workload.time.per_server(workload.uploads)
    sent = traffic_of_zeros(workload.algorithm, learner.fresh_server(), clients.names, taken_up)
    beside = apart(workload, timetable, sent.server)
    return replace(setup, states=beside.read, sums=beside.sums)


def check_ends(timetable: Timetable | None, rounds: int) -> None:
    """Refuse a run that simulated time will not let finish, as far as its first turns tell.

    Args:
        timetable: Of the run; None without simulated time.
        rounds: Number of all of them.

    Raises:
        InputError: no client finishes a turn any more.
    """
    if timetable is not None:
        foresee(timetable, rounds)


def foresee(timetable: Timetable, rounds: int) -> Virtual:
    """A run in simulated time, by its first rounds.

    Args:
        timetable: Of the run.
        rounds: Number of all of them.

    Raises:
        InputError: no client finishes a turn any more.
    """
    turns = list[Turn]()
    for step in _first(timetable, rounds):
        turns += step.turns
    stale = [turn.staleness for turn in turns if turn.outcome == "trained"]
    busy, outcomes = sum(turn.end_s - turn.begin_s for turn in turns), Counter(turn.outcome for turn in turns)
    return Virtual(
        rounds=step.round,
        seconds=step.end_s * rounds / step.round,
        at_work=busy / step.end_s if step.end_s else 0.0,
        staleness=sum(stale) / len(stale),
        stalest=max(stale),
        shares={outcome: count / len(turns) for outcome, count in outcomes.most_common()},
    )


def _first(timetable: Timetable, rounds: int) -> Iterator[Step]:
    """The steps of a run with its first turns."""
    turns = 0
    for round_ in range(1, rounds + 1):
        yield (step := timetable.step(round_))
        turns += len(step.turns)
        if turns >= _MOST:
            break
