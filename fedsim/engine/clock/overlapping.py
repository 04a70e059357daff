"""Server steps with a buffer of uploads, while other clients are at work: FedBuff, and FedAsync with one upload."""

import math
from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

import numpy as np
from numpy.typing import NDArray

from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.cohorts import MOST_TRIES, unfinished
from fedsim.engine.clock.conditions import MOST_IN_VAIN, Conditions
from fedsim.engine.clock.draws import Draws
from fedsim.engine.clock.turns import Outcome, Step, Turn
from fedsim.workload.time import Time

_MOST_DRAWS = 64
"""Draws without a new client before all clients are looked through."""


class Overlapping:
    """The steps of modes buffered and asynchronous: an event queue in the order of (virtual time, place)."""

    def __init__(self, time: Time, draws: Draws, conditions: Conditions, clients: Clients) -> None:
        self._time, self._draws, self._conditions, self._clients = time, draws, conditions, clients
        self._now, self._round = 0.0, 1
        self._queue: list[tuple[float, int, float, int, Outcome]] = []
        """End [s], place, begin [s], version and outcome of each turn that has begun."""
        self._out = set[int]()
        """Places of those at work, and of those whose turn has ended in this step."""
        self._ended = list[int]()
        self._wake = -math.inf
        """When a client may be drawn next [s], unless a step comes before."""
        self._number = 0
        self._numbers = Counter[int]()

    def steps(self) -> Iterator[Step]:
        """All steps, from the first."""
        for self._round in count(1):
            begin, turns = self._now, self._turns()
            self._forget()
            in_flight = frozenset(version for *_, version, _ in self._queue)
            yield Step(round=self._round, begin_s=begin, end_s=self._now, turns=tuple(turns), in_flight=in_flight)

    def _turns(self) -> list[Turn]:
        """The turns that end until the buffer is full, or no client is left that could fill it.

        Raises:
            InputError: no client ever finishes.
        """
        if not self._can_go_on():
            raise unfinished(self._round)
        turns, uploads, tries, ended = list[Turn](), 0, 0, 0
        while uploads < self._time.uploads:
            next_ = self._next()
            if math.isfinite(next_):
                self._now = next_
                if self._queue and self._queue[0][0] == next_:
                    turns.append(self._end())
                    ended += 1
                    uploads += turns[-1].outcome == "trained"
            elif uploads:
                break
            elif turns and tries < MOST_TRIES:
                tries += 1
                turns.clear()
                self._forget()
            else:
                raise unfinished(self._round)
            if ended > MOST_IN_VAIN and not uploads:
                raise unfinished(self._round)
        return turns

    def _can_go_on(self) -> bool:
        """Whether an upload is on its way, or a client can finish a turn that it has still to begin."""
        coming = any(outcome == "trained" for *_, outcome in self._queue)
        return coming or self._conditions.some_can_finish(map(int, self._draws.members(self._round)))

    def _forget(self) -> None:
        """Let those whose turn has ended be drawn again."""
        self._out.difference_update(self._ended)
        self._ended.clear()
        self._wake = -math.inf

    def _next(self) -> float:
        """When something happens next [s], after free places have been filled; infinite if nothing ever does."""
        ends = self._queue[0][0] if self._queue else math.inf
        if ends > self._now and len(self._queue) < self._at_work() and self._wake <= self._now:
            self._fill()
            ends = self._queue[0][0] if self._queue else math.inf
        return min(ends, self._wake) if self._wake > self._now else ends

    def _at_work(self) -> int:
        return self._time.concurrency or self._draws.cohort(self._round)

    def _fill(self) -> None:
        """Draw until all places are taken, passing over clients that are at work, have ended or are not available."""
        if len(self._out) == len(self._clients):
            self._wake = math.inf
            return
        places, missed, self._wake = self._draws.members(self._round), 0, -math.inf
        while (free := self._at_work() - len(self._queue)) > 0:
            if missed == 1 and len(places) <= _MOST_DRAWS and not len(self._look_through()):
                return
            if missed == _MOST_DRAWS:
                places = self._look_through()
                if not len(places):
                    return
            self._number += 1
            begun = [place for place in self._draws.draw(places, free, self._number) if self._can(place)]
            for place in begun:
                self._begin(place)
            missed = 0 if begun else missed + 1

    def _look_through(self) -> NDArray[np.int64]:
        """The places of all that can be drawn; if there are none, note when one can."""
        idle = [place for place in self._draws.members(self._round).tolist() if place not in self._out]
        windows = {place: self._conditions.of(place).windows.at(self._now)[0] for place in idle}
        there = [place for place in idle if windows[place] <= self._now]
        self._wake = -math.inf if there else min(windows.values(), default=math.inf)
        return np.array(there, np.int64)

    def _can(self, place: int) -> bool:
        return place not in self._out and self._conditions.available(place, self._now)

    def _begin(self, place: int) -> None:
        self._out.add(place)
        self._numbers[place] += 1
        end, outcome = self._conditions.end(place, self._now, self._numbers[place])
        heappush(self._queue, (end, place, self._now, self._round - 1, outcome))

    def _end(self) -> Turn:
        end, place, begin, version, outcome = heappop(self._queue)
        self._ended.append(place)
        return Turn(
            client=self._conditions.of(place).client,
            round=self._round,
            version=version,
            begin_s=begin,
            end_s=end,
            outcome=outcome,
        )
