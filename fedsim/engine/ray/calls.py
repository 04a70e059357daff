"""Actors and the calls in progress, as the driver knows them."""

import time
from dataclasses import dataclass
from typing import Any

from fedsim.core.errors import WorkerLostError
from fedsim.engine.host.messages import Message, Reply
from fedsim.engine.place.placement import Placement


@dataclass(kw_only=True)
class Actor:
    """A host in an actor: its planned placement, the node it runs on, and its present clients."""

    handle: Any
    """Ray's handle of it."""
    placement: Placement
    node: str
    """Ray's id of the node that it runs on."""
    clients: dict[str, None]
    """Names of its present clients, in their order."""


@dataclass(frozen=True)
class Outgoing:
    """A message to the actors of its clients."""

    message: Message
    broadcast: tuple[Any, ...]
    """The reference to what the server sends, which actors map without copying; empty if it sends nothing."""


@dataclass(kw_only=True)
class Call:
    """A call in progress, and what to fetch when it ends."""

    actor: Actor
    last: Any | None
    """The reference to the host's partial sums; None if it does not train."""
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
