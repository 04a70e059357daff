"""Waiting for the nodes of a run, which a cluster's autoscaler starts if they are asked for."""

import logging
import time
from typing import Any

from fedsim.core.errors import InputError
from fedsim.core.text import duration
from fedsim.engine.place.machine import nodes_of
from fedsim.engine.ray.head import Head
from fedsim.workload.engine import Engine

_LOOK_EVERY_S = 1.0
log = logging.getLogger("fedsim")


class Gathering:
    """As many nodes as `engine.nodes` says: asked for where some are missing, and held until the run ends."""

    def __init__(self, ray: Any, head: Head, engine: Engine, *, grows: bool) -> None:  # noqa: ANN401 - the module ray
        """`grows`: whether other nodes can join this Ray."""
        self._ray, self._head, self._grows = ray, head, grows
        self._wanted, self._patience = engine.nodes or 0, engine.nodes_timeout_s
        self._asked: Any = None

    def wait(self) -> None:
        """Wait until the nodes are there, if `engine.nodes_timeout_s` says so.

        Raises:
            InputError: they did not come in time, or no other node can join.
            RunError: Ray's head has died.
        """
        if self._patience is None or not self._missing():
            return
        if self._grows:
            self._wait(self._patience)
        if self._missing():
            waited = f" after {duration(self._patience)}" if self._grows else ""
            there = f"engine.nodes: {self._wanted}, and the Ray cluster has {self._wanted - self._missing()}{waited}"
            raise InputError(f"{there}; lower it, or let the cluster have more")

    def _wait(self, seconds: float) -> None:
        what = f"waits for {self._missing()} of {self._wanted} nodes"
        log.warning("%s, for at most %s (engine.nodes_timeout_s)", what, duration(seconds))
        if self._asked is None:  # a core on each of so many nodes: it makes every autoscaler start them and keep them
            self._asked = self._ray.util.placement_group([{"CPU": 1}] * self._wanted, strategy="STRICT_SPREAD")
        deadline = time.monotonic() + seconds
        while self._missing() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_LOOK_EVERY_S, left))
            self._head.check()

    def _missing(self) -> int:
        return max(0, self._wanted - len(nodes_of(self._ray)))

    def end(self) -> None:
        """Ask for no nodes any more: an autoscaler may end those that are idle."""
        if self._asked is not None:
            self._ray.util.remove_placement_group(self._asked)
            self._asked = None
