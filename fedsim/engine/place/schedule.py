"""Balancing work: clients go to actors longest first, and from a busy actor to an idle one of its node.

None of this changes a result (law 1), only how long the slots of a node are idle.
"""

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fedsim.engine.host.client import ClientSpec

_MOVE_SECONDS_PER_BYTE = 3e-9  # a state written to a file on the node and read again
_MOVE_SECONDS = 0.01
_WORTH = 0.02  # share of a round; smaller gains are within the noise of measured times


class Expectations:
    """How long each client will take: as in its last round or, before that, in proportion to its data."""

    def __init__(self) -> None:
        self._work: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, float] = {}
        self._pace = 1.0

    def expect(self, client: ClientSpec) -> None:
        """Know a client that takes part from now on."""
        self._work[client.name] = max(client.work(), 1.0)

    def learn(self, seconds: Mapping[str, float], private_bytes: Mapping[str, float]) -> None:
        """Record how long clients took [s] and how much private state each has [bytes]."""
        self._seconds.update(seconds)
        self._bytes.update(private_bytes)
        paces = [taken / self._work[name] for name, taken in seconds.items()]
        self._pace = median(paces) if paces else self._pace

    @property
    def measured(self) -> bool:
        """Whether the estimates are seconds rather than proportions."""
        return bool(self._seconds)

    def seconds(self, client: str) -> float:
        """Expected time of a client [s]."""
        return self._seconds.get(client, self._work[client] * self._pace)

    def move_seconds(self, client: str) -> float:
        """Expected time to move a client to another actor of its node [s]."""
        return _MOVE_SECONDS + _MOVE_SECONDS_PER_BYTE * self._bytes.get(client, 0.0)


@dataclass(frozen=True)
class Move:
    """A client that moves from one actor to another."""

    client: str
    """Name of the client."""
    source: int
    """Index of the actor that it leaves."""
    target: int
    """Index of the actor that it goes to."""


def spread(clients: Sequence[ClientSpec], actors: int) -> list[list[ClientSpec]]:
    """Clients divided among actors, longest first, each to the one with the least work; groups keep the given order."""
    groups: list[list[ClientSpec]] = [[] for _ in range(actors)]
    for client, number in zip(clients, dealt([client.work() for client in clients], [0.0] * actors), strict=True):
        groups[number].append(client)
    return groups


def dealt(work: Sequence[float], loads: Sequence[float]) -> list[int]:
    """The actor that each piece of work goes to, given the load that each has: longest first, to the least loaded."""
    actors = [(load, number) for number, load in enumerate(loads)]
    heapq.heapify(actors)
    goes = [0] * len(work)
    for index in sorted(range(len(work)), key=lambda at: (-work[at], at)):
        load, goes[index] = heapq.heappop(actors)
        heapq.heappush(actors, (load + work[index], goes[index]))
    return goes


def balance(
    queues: Sequence[Collection[str]], seconds: Callable[[str], float], move_seconds: Callable[[str], float]
) -> list[Move]:
    """Moves of clients between the actors of a node that shorten its round by more than they cost.

    Args:
        queues: The clients that each actor is about to train.
        seconds: Time of a client [s].
        move_seconds: Time that moving a client costs each of the two actors [s].
    """
    queued = [set(queue) for queue in queues]
    loads = [sum(seconds(client) for client in sorted(queue)) for queue in queued]
    moves: list[Move] = []
    while len(loads) > 1:
        source, target = (pick(range(len(loads)), key=loads.__getitem__) for pick in (max, min))

        def after(client: str, source: int = source, target: int = target) -> float:
            """The longer load of the two with the client moved [s]."""
            cost = move_seconds(client)
            return max(loads[source] - seconds(client), loads[target] + seconds(client)) + cost

        best = min(sorted(queued[source]), key=after, default=None)
        if best is None or loads[source] - after(best) <= max(move_seconds(best), _WORTH * loads[source]):
            break
        cost = move_seconds(best)
        loads[source] += cost - seconds(best)
        loads[target] += cost + seconds(best)
        queued[source].remove(best)
        queued[target].add(best)
        moves.append(Move(best, source, target))
    return moves
