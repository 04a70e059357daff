"""The steps of a run, whether time is simulated or not."""

import math
from collections.abc import Callable
from functools import lru_cache, partial

from fedsim.core.errors import InputError, RunError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.clock.turns import Step, Turn
from fedsim.workload.schema import Workload

StepOf = Callable[[int], Step]
"""The step of a round, counted from 1."""


def steps_of(workload: Workload, clients: Clients, timetable: Timetable | None) -> StepOf:
    """The steps of a run: those of its timetable or, without simulated time, the sampler's cohorts at no time."""
    return lru_cache(1)(partial(_untimed, workload, clients)) if timetable is None else partial(_timed, timetable)


def drawn(workload: Workload, clients: Clients, round_: int) -> list[int]:
    """The places of the clients that the sampler draws for a round, ascending."""
    training = workload.training
    return training.sampler.drawn(clients, training.drawn(len(clients)), round_, workload.seed)


def cohort(step: Step, clients: Clients) -> tuple[str, ...]:
    """The clients that a step trains, in the federation's order."""
    return tuple(sorted((turn.client for turn in step.turns if turn.outcome == "trained"), key=clients.place))


def _timed(timetable: Timetable, round_: int) -> Step:
    """A step of a run that has begun.

    Raises:
        RunError: no client finishes a turn any more, which could not be foreseen by the first turns.
    """
    try:
        return timetable.step(round_)
    except InputError as error:
        raise RunError(str(error)) from error


def _untimed(workload: Workload, clients: Clients, round_: int) -> Step:
    turns = tuple(
        Turn(
            client=clients.names[place],
            round=round_,
            version=round_ - 1,
            begin_s=math.nan,
            end_s=math.nan,
            outcome="trained",
        )
        for place in drawn(workload, clients, round_)
    )
    return Step(round=round_, begin_s=math.nan, end_s=math.nan, turns=turns)
