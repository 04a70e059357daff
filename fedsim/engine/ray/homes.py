"""Which actor has which client: dealt when it first takes part, and remembered from then on."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from fedsim.engine.host.client import ClientSpec
from fedsim.engine.place.schedule import Expectations, dealt
from fedsim.engine.ray.calls import Actor
from fedsim.workload.resources import Resources


class Homes:
    """The actors of the clients that have taken part, and how long each client is expected to take."""

    def __init__(self) -> None:
        self._actors: dict[str, Actor] = {}
        self.expected = Expectations()

    def names(self) -> Collection[str]:
        """All clients that have an actor."""
        return self._actors.keys()

    def add(self, actor: Actor, clients: Iterable[ClientSpec]) -> None:
        """Note that an actor has some more clients."""
        for client in clients:
            self.expected.expect(client)
            actor.clients[client.name] = None
            self._actors[client.name] = actor

    def move(self, client: str, target: Actor) -> None:
        """Note that a client has moved to another actor."""
        del self._actors[client].clients[client]
        target.clients[client] = None
        self._actors[client] = target

    def by_actor(self, names: Iterable[str]) -> list[tuple[Actor, list[str]]]:
        """Some clients by their actor; those without one are left out."""
        found: dict[int, tuple[Actor, list[str]]] = {}
        for name in names:
            if name in self._actors:
                home = self._actors[name]
                found.setdefault(id(home), (home, []))[1].append(name)
        return list(found.values())

    def deal(
        self, clients: Sequence[ClientSpec], names: Sequence[str], actors: Sequence[Actor]
    ) -> Iterator[tuple[Actor, list[ClientSpec]]]:
        """Deal clients without an actor, each to one of its kind, so that all of a call finish together.

        Args:
            clients: Those without an actor.
            names: All clients of the call.
            actors: All actors.

        Yields:
            Actors that get some, each with its new clients.
        """
        loads = {id(actor): sum(map(self.expected.seconds, there)) for actor, there in self.by_actor(names)}
        kinds = defaultdict[Resources, list[ClientSpec]](list)
        for client in clients:
            self.expected.expect(client)
            kinds[client.resources].append(client)
        for needs, alike in kinds.items():
            able = [actor for actor in actors if actor.placement.needs == needs]
            work = [self.expected.seconds(client.name) for client in alike]
            goes = dealt(work, [loads.get(id(actor), 0.0) for actor in able])
            groups = defaultdict[int, list[ClientSpec]](list)
            for client, number in zip(alike, goes, strict=True):
                groups[number].append(client)
            for number, own in groups.items():
                self.add(able[number], own)
                yield able[number], own
