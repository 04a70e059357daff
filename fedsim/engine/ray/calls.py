"""Actors and the calls in progress, as the driver knows them."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias

from fedsim.core.errors import WorkerLostError
from fedsim.engine.host.merging import Level, together
from fedsim.engine.host.messages import Reply
from fedsim.engine.place.placement import Placement
from fedsim.engine.ray.head import Head
from fedsim.engine.ray.private import streaming_ahead
from fedsim.engine.ray.tree import Tree

_WINDOW = 4  # pieces of an answer that a host may produce ahead of the driver
_FEW, _MOMENT_S = 32, 0.02


@dataclass(kw_only=True)
class Actor:
    """A host in an actor: its planned placement, the node it runs on, and its present clients."""

    handle: Any
    """Ray's handle of it."""
    placement: Placement
    node: str
    """Ray's id of the node that it runs on."""
    clients: dict[str, None] = field(default_factory=dict)
    """Names of its present clients, in their order."""


class ToClients(Protocol):
    """A message that can be narrowed to some of its clients."""

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """What their host receives."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A message to the actors of its clients."""

    message: ToClients
    broadcast: tuple[Any, ...] = ()
    """The reference to what the server sends, which actors map without copying; empty if it sends nothing."""
    sums: bool = False
    """Whether the actors train, and then have partial sums."""


@dataclass(kw_only=True)
class Call:
    """A call in progress, and what to fetch when it ends."""

    actor: Actor
    last: Any | None
    """The reference to the host's partial sums; None if it does not train, or hands them in itself."""
    awaited: dict[str, None]
    """The clients that it has yet to train, in order; the first is being trained, unless clients are fused."""
    heard: float
    """When a piece of its answer last arrived [s, monotonic clock]."""
    fuse: int = 1
    """Clients that it trains as one network."""
    begun: bool = False
    """Whether any piece has arrived."""

    def hear(self, piece: Reply) -> None:
        """Record a piece of the answer."""
        self.heard, self.begun = time.monotonic(), True
        for name in (*(row["client"] for row in piece.rows), *piece.failed):
            self.awaited.pop(name, None)

    @property
    def at_work(self) -> str:
        """The client that it is training, as far as is known; empty if it does something else, or nothing yet."""
        return next(iter(self.awaited), "") if self.begun and self.fuse == 1 else ""

    def late(self, patience: float) -> WorkerLostError:
        """What to raise where a client, or those that train as one network, took longer than `patience` [s] each."""
        limit = f"took longer than engine.client_timeout_s={patience:g}"
        if self.fuse > 1:
            return WorkerLostError(f"{self.fuse} clients that train as one network {limit} each", late=True)
        client = next(iter(self.awaited))
        return WorkerLostError(f"client {client} {limit}", client, late=True)


Queues: TypeAlias = dict[str, list[tuple[Actor, tuple[str, ...]]]]
"""Actors to call, and the clients of each that are concerned, by node."""


class Calls:
    """The calls of a message, of which each node runs as many at a time as it has cores for."""

    def __init__(
        self,
        ray: Any,  # noqa: ANN401 - the module ray
        head: Head,
        tree: Tree,
        *,
        cpus: Mapping[str, float],
        fuse: int = 1,
        patience: float | None = None,
    ) -> None:
        """No call is in progress.

        Args:
            ray: The module.
            head: Waits for Ray.
            tree: Adds up what hosts hand in.
            cpus: Cores by node.
            fuse: Clients that train as one network.
            patience: Seconds that a client may train, times `fuse`; None: any time.
        """
        self._ray, self._head, self._tree = ray, head, tree
        self._cpus, self._fuse, self._patience = cpus, fuse, patience
        self.running: dict[Any, Call] = {}
        """The calls in progress, by the streams of their answers."""
        self._left: dict[str, int] = {}  # calls that have not ended, by node

    def answers(self, sent: Outgoing, waiting: Queues) -> Iterator[Reply]:
        """Make all calls; yields the pieces of their answers as they arrive, and the sums of those that train.

        Raises:
            WorkerLostError: a process is gone, or a client took too long.
            RunError: an actor failed.
        """
        self.running, self._left = {}, {node: len(queue) for node, queue in waiting.items()}
        self._tree.begin(self._left if sent.sums else {})
        for node, queue in waiting.items():
            self._launch(sent, queue, node)
        while self.running:
            for stream in self._ready():
                call = self.running[stream]
                try:
                    piece = self._head.get(next(stream), call.at_work)
                except StopIteration:
                    self._end(stream, sent, waiting[call.actor.node])
                    if call.last is not None:
                        yield self._fetched(call.last)
                    continue
                call.hear(piece)
                yield piece
        begun = time.perf_counter()
        for subtotal in self._tree.subtotals():
            waited = {"driver": Level(seconds=time.perf_counter() - begun)}
            yield Reply(sums=subtotal.sums, levels=together(subtotal.levels, waited))
            begun = time.perf_counter()

    def _fetched(self, sums: Any) -> Reply:  # noqa: ANN401 - a reference
        """The sums of a host without an adder."""
        begun = time.perf_counter()
        fetched = self._head.get(sums)
        return Reply(sums=fetched, levels={"driver": Level(seconds=time.perf_counter() - begun)})

    def _ready(self) -> list[Any]:
        """The calls with a piece ready, or at their end; an actor that takes too long over a client is killed."""
        training = [call for call in self.running.values() if call.awaited]
        if self._patience is None or not training:
            return self._found()
        slowest = min(training, key=lambda call: call.heard)
        end = slowest.heard + slowest.fuse * self._patience
        found = self._found(max(0.0, end - time.monotonic()))
        if found or time.monotonic() < end:
            return found
        self._ray.kill(slowest.actor.handle)
        raise slowest.late(self._patience)

    def _found(self, within: float = math.inf) -> list[Any]:
        """Wait for the first call, and find all that are ready.

        A wait looks at every call. So of very many calls some are awaited before the next look, for a moment.
        """
        awaited = list(self.running)
        found = self._head.wait(awaited, 1, within)
        if found and len(awaited) > _FEW:
            self._head.wait(awaited, len(awaited) // _FEW, _MOMENT_S)
        return self._head.wait(awaited, len(awaited), 0.0) if found else []

    def _launch(self, sent: Outgoing, waiting: list[tuple[Actor, tuple[str, ...]]], node: str) -> None:
        """Start the calls that the node has cores for; one that asks for more than the node has runs alone."""
        if not waiting:
            return
        here = [call.actor.placement.cpus for call in self.running.values() if call.actor.node == node]
        free, idle = self._cpus[node] - sum(here), not here
        for pair in list(waiting):
            actor, mine = pair
            if actor.placement.cpus <= free or idle:
                stream, call = self._begun(sent, actor, mine)
                self.running[stream] = call
                waiting.remove(pair)
                free, idle = free - actor.placement.cpus, False

    def _end(self, stream: Any, sent: Outgoing, waiting: list[tuple[Actor, tuple[str, ...]]]) -> None:  # noqa: ANN401
        """Start the calls that the end of one makes room for; after the last of a node, its sums are complete."""
        node = self.running.pop(stream).actor.node
        self._launch(sent, waiting, node)
        self._left[node] -= 1
        if not self._left[node]:
            self._tree.ended(node)

    def _begun(self, sent: Outgoing, actor: Actor, clients: tuple[str, ...]) -> tuple[Any, Call]:
        """Call an actor for some of its clients."""
        name = f"Host.{type(sent.message).__name__.lower()}"  # seen in `ps`, `top` and Ray's dashboard
        options, message = (
            {"name": name, **streaming_ahead(_WINDOW)},
            (sent.message.for_clients(clients), *sent.broadcast),
        )
        adder, last = self._tree.adder(actor.node), None
        if adder is not None:
            stream = actor.handle.handle_and_add.options(**options).remote(adder, *message)
        else:
            stream = actor.handle.handle.options(**options).remote(*message)
            last = actor.handle.partial_sums.remote() if sent.sums else None
        awaited = dict.fromkeys(clients if sent.sums else ())
        return stream, Call(actor=actor, last=last, awaited=awaited, heard=time.monotonic(), fuse=self._fuse)
