"""An actor that adds the partial sums of its node, and how hosts hand theirs in; imports neither torch nor a host."""

import signal
from collections.abc import Iterator
from typing import Any

from fedsim.engine.host.merging import Level, Merger, Subtotal, Sums, together


class Adder:
    """Adds what hosts of its node, or other nodes' adders, have put into the object store, without copying it."""

    def __init__(self) -> None:
        self._merger = Merger()
        self._levels: dict[str, Level] = {}

    def add(self, sums: Sums) -> None:
        """Add the sums of a host of this node.

        Raises:
            MethodError: they are not as long as the earlier ones.
            DivergedError: a sum may leave the range in which it is exact.
        """
        self._levels = together(self._levels, {"node": self._merger.add(sums)})

    def join(self, subtotal: Subtotal) -> None:
        """Add the subtotal of another node.

        Raises:
            MethodError: its sums are not as long as this node's.
            DivergedError: a sum may leave the range in which it is exact.
        """
        self._levels = together(self._levels, subtotal.levels, {"group": self._merger.add(subtotal.sums)})

    def subtotal(self) -> Subtotal:
        """What has been added since the last time."""
        done = Subtotal(sums=self._merger.sums(), levels=self._levels)
        self._merger, self._levels = Merger(), {}
        return done


def handing_in(kind: type[Any]) -> type[Any]:
    """The class of hosts, with a way to answer in which they hand in their sums before the answer ends."""

    class HandsIn(kind):  # type: ignore[misc]
        def __init__(self, *given: Any) -> None:  # noqa: ANN401 - what a host is given
            # SIGTERM ends the process, which is replaced; Ray would raise SystemExit in the middle of a client's work,
            # whose own failure it would seem to be.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            super().__init__(*given)

        def handle_and_add(self, adder: Any, *message: Any) -> Iterator[Any]:  # noqa: ANN401 - Ray's handle
            import ray  # noqa: PLC0415 - runs in an actor

            yield from self.handle(*message)
            try:
                ray.get(adder.add.remote(self.partial_sums()))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error

    HandsIn.__name__ = HandsIn.__qualname__ = kind.__name__  # seen in `ps` and `top`
    return HandsIn
