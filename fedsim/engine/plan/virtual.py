"""What a run will be in simulated time, by its timetable."""

from collections import Counter
from dataclasses import dataclass

from fedsim.algorithms.learner import Learner
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.clock.turns import Outcome, Turn
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


def foresee(workload: Workload, clients: Clients, learner: Learner) -> Virtual:
    """A run in simulated time, by its first rounds.

    Args:
        workload: Settled, with the section `time`.
        clients: The federation's.
        learner: Their working network, as initialised.

    Raises:
        InputError: its trace cannot be used, or no client finishes a turn any more.
    """
    timetable, turns = Timetable.of(workload, clients, learner), list[Turn]()
    for round_ in range(1, workload.training.rounds + 1):
        step = timetable.step(round_)
        turns += step.turns
        if len(turns) >= _MOST:
            break
    stale = [turn.staleness for turn in turns if turn.outcome == "trained"]
    busy, outcomes = sum(turn.end_s - turn.begin_s for turn in turns), Counter(turn.outcome for turn in turns)
    return Virtual(
        rounds=step.round,
        seconds=step.end_s * workload.training.rounds / step.round,
        at_work=busy / step.end_s if step.end_s else 0.0,
        staleness=sum(stale) / len(stale),
        stalest=max(stale),
        shares={outcome: count / len(turns) for outcome, count in outcomes.most_common()},
    )
