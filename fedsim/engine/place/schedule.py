"""Who works where and when: clients to actors, longest first, and from a busy actor to an idle one of its node.

Nothing here changes a result (law 1); it only changes how long the slots of a node stand idle.
"""

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fedsim.engine.host.client import ClientSpec

_MOVE_SECONDS_PER_BYTE = 3e-9  # a state written to a file of the node and read again
_MOVE_SECONDS = 0.01
_WORTH = 0.02  # of the round: smaller gains are within the noise of measured times


class Expectations:
    """How long each client will take: as in its last round, or in proportion to its data until it has had one."""

    def __init__(self, clients: Collection[ClientSpec]) -> None:
        self._work = {client.name: max(client.work(), 1.0) for client in clients}
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, float] = {}
        self._pace = 1.0

    def learn(self, seconds: Mapping[str, float], private_bytes: Mapping[str, float]) -> None:
        """Take up what clients took, and how much private state each of them has."""
        self._seconds.update(seconds)
        self._bytes.update(private_bytes)
        paces = [taken / self._work[name] for name, taken in seconds.items()]
        self._pace = median(paces) if paces else self._pace

    @property
    def measured(self) -> bool:
        """Whether the numbers are seconds, and not only proportions."""
        return bool(self._seconds)

    def seconds(self, client: str) -> float:
        """What a client will take."""
        return self._seconds.get(client, self._work[client] * self._pace)

    def move_seconds(self, client: str) -> float:
        """What it would take to move a client to another actor of its node."""
        return _MOVE_SECONDS + _MOVE_SECONDS_PER_BYTE * self._bytes.get(client, 0.0)


@dataclass(frozen=True)
class Move:
    """A client that goes from an actor to another, by their numbers."""

    client: str
    """Name of the client."""
    source: int
    """Index of the actor that it leaves."""
    target: int
    """Index of the actor that it goes to."""


def spread(clients: Sequence[ClientSpec], actors: int) -> list[list[ClientSpec]]:
    """Clients dealt to so many actors, longest first, each to the one with the least work; in their given order."""
    loads = [(0.0, number) for number in range(actors)]
    groups: list[list[int]] = [[] for _ in range(actors)]
    for index in sorted(range(len(clients)), key=lambda at: (-clients[at].work(), at)):
        load, number = heapq.heappop(loads)
        groups[number].append(index)
        heapq.heappush(loads, (load + clients[index].work(), number))
    return [[clients[index] for index in sorted(group)] for group in groups]


def balance(
    queues: Sequence[Collection[str]], seconds: Callable[[str], float], move_seconds: Callable[[str], float]
) -> list[Move]:
    """Moves between the actors of a node that shorten its round by more than they cost.

    Args:
        queues: The clients that each actor is about to train.
        seconds: What a client takes.
        move_seconds: What moving a client takes, on both sides.
    """
    queued = [set(queue) for queue in queues]
    loads = [sum(seconds(client) for client in sorted(queue)) for queue in queued]
    moves: list[Move] = []
    while len(loads) > 1:
        source, target = (pick(range(len(loads)), key=loads.__getitem__) for pick in (max, min))

        def after(client: str, source: int = source, target: int = target) -> float:
            """The longer of the two, with the client moved."""
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
