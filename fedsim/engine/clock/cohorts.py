"""Rounds in which the server waits for a cohort: for all of it, or until a deadline; each region for its own part."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import count

from fedsim.core.errors import RefusedError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.conditions import MOST_IN_VAIN, Conditions
from fedsim.engine.clock.draws import Draws
from fedsim.engine.clock.turns import Outcome, Step, Turn
from fedsim.workload.time import Time

MOST_TRIES = 1000
"""Attempts at a round that no client finishes before it is given up."""
_ABSENT: Outcome = "unavailable"
_LATE: Outcome = "late"
_Ended = tuple[float, int, float, Outcome]
"""End [s], place, begin [s] and outcome of a turn."""


def unfinished(round_: int) -> RefusedError:
    """The error of a round that no client finishes."""
    remedies = [
        "raise time.available.share", "lower time.dropout",
        "set time.available.period_h for the windows of a trace to return",
        *([f"set training.rounds to at most {round_ - 1}"] if round_ > 1 else []),
    ]  # fmt: skip
    remedy = f"{', '.join(remedies[:-1])}, or {remedies[-1]}"
    return RefusedError(f"time: round {round_}: no client finishes its turn any more; {remedy}")


class Cohorts:
    """The steps of modes synchronous and deadline."""

    def __init__(self, time: Time, draws: Draws, conditions: Conditions, clients: Clients) -> None:
        self._time, self._draws, self._conditions, self._clients = time, draws, conditions, clients
        deadline = time.mode == "deadline"
        self._deadline = time.deadline_s if deadline and time.deadline_s else math.inf
        self._over = time.over_select if deadline else 1.0
        self._numbers = Counter[int]()

    def steps(self) -> Iterator[Step]:
        """All rounds, from the first."""
        regions = self._time.hierarchy.regions if self._time.hierarchy else 1
        clocks = [0.0] * regions
        for round_ in count(1):
            begin, turns = max(clocks), list[tuple[float, int, Turn]]()
            for region, places in enumerate(self._drawn(round_, regions)):
                if places:
                    ended = self._ended(round_, places, clocks[region])
                    clocks[region] = max(end for end, *_ in ended)
                    turns += [(one[0], one[1], self._turn(round_, one)) for one in ended]
            if self._time.hierarchy and round_ % self._time.hierarchy.rounds_per_sync == 0:
                clocks = [max(clocks)] * regions
            ordered = tuple(turn for _, _, turn in sorted(turns, key=lambda one: one[:2]))
            yield Step(round=round_, begin_s=begin, end_s=max(clocks), turns=ordered)

    def _drawn(self, round_: int, regions: int) -> list[list[int]]:
        """The cohort of each region."""
        members, hierarchy = self._draws.members(round_), self._time.hierarchy
        size = math.ceil(round(self._over * self._draws.cohort(round_), 9))
        parts: list[list[int]] = [[] for _ in range(regions)]
        for place in self._draws.draw(members, size, round_):
            parts[hierarchy.region(place, len(self._clients)) if hierarchy else 0].append(place)
        return parts

    def _turn(self, round_: int, ended: _Ended) -> Turn:
        end, place, begin, outcome = ended
        return Turn(
            client=self._conditions.of(place).client,
            round=round_,
            version=round_ - 1,
            begin_s=begin,
            end_s=end,
            outcome=outcome,
        )

    def _ended(self, round_: int, places: list[int], now: float) -> list[_Ended]:
        """The turns of a cohort; if no client finishes, those of the first attempt in which one does.

        Raises:
            InputError: none ever does.
        """
        in_vain, tries = 0, MOST_TRIES if self._conditions.some_can_finish(places) else 0
        for _ in range(tries):
            here = [place for place in places if self._conditions.available(place, now)]
            if here:
                ended = self._until(self._draws.cohort(round_), [self._begun(place, now) for place in here], now)
                if any(outcome == "trained" for *_, outcome in ended):
                    began = {*here}
                    return [*ended, *((now, place, now, _ABSENT) for place in places if place not in began)]
                now = max(end for end, *_ in ended)
                in_vain += len(here)
            else:
                now = min(self._conditions.of(place).windows.at(now)[0] for place in places)
            if math.isinf(now) or in_vain > MOST_IN_VAIN:
                break
        raise unfinished(round_)

    def _begun(self, place: int, now: float) -> _Ended:
        self._numbers[place] += 1
        end, outcome = self._conditions.end(place, now, self._numbers[place])
        return end, place, now, outcome

    def _until(self, cohort: int, turns: list[_Ended], now: float) -> list[_Ended]:
        """The turns, cut off where the server no longer waits: after a cohort, at the deadline, or after the first."""
        trained = sorted(turn for turn in turns if turn[3] == "trained")
        in_time = [turn for turn in trained if turn[0] <= now + self._deadline][:cohort] or trained[:1]
        last = max(end for end, *_ in turns)
        if len(in_time) == cohort or (in_time and in_time[-1][0] > now + self._deadline):
            stop = in_time[-1][0]
        else:
            stop = min(now + self._deadline, last) if in_time else last
        taken = {place for _, place, *_ in in_time}
        return [
            turn if turn[1] in taken or (turn[3] != "trained" and turn[0] <= stop) else (stop, turn[1], now, _LATE)
            for turn in turns
        ]
