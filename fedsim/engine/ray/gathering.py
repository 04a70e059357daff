"""Waiting for the nodes of a run, which a cluster's autoscaler starts if they are asked for."""

import logging
import time
from contextlib import suppress
from typing import Any

from fedsim.core.errors import InputError, RunError
from fedsim.core.text import duration
from fedsim.engine.place.machine import nodes_of
from fedsim.engine.place.placement import nodes_missing
from fedsim.engine.ray.errors import explained
from fedsim.engine.ray.head import Head
from fedsim.workload.engine import Engine

_LOOK_EVERY_S = 1.0
log = logging.getLogger("fedsim")


class Gathering:
    """As many nodes as `engine.nodes` says: waited for, and held until the run ends, where a timeout is set."""

    def __init__(self, ray: Any, head: Head, engine: Engine, *, grows: bool) -> None:  # noqa: ANN401 - the module ray
        """`grows`: whether other nodes can join this Ray."""
        self._ray, self._head, self._grows = ray, head, grows
        self._engine, self._wanted, self._patience = engine, engine.nodes or 0, engine.nodes_timeout_s
        self._asked: Any = None

    def wait(self, *, running: bool = False) -> None:
        """Wait until the nodes are there.

        Args:
            running: Whether the run has begun, and has lost a node since.

        Raises:
            InputError: they did not come in time, or no other node can join.
            RunError: the same, of a run that has begun; or Ray's head has died.
        """
        if self._patience is None or not self._wanted:
            return
        if self._grows:
            self._ask()
            self._wait(self._patience)
        if self._missing():
            waited = f" after {duration(self._patience)}" if self._grows else ""
            there = f"engine.nodes: {self._wanted}, and the Ray cluster has {self._wanted - self._missing()}{waited}"
            if running:
                raise RunError(f"{there}; add nodes, and continue with --resume")
            raise InputError(f"{there}; lower it, or {'add nodes to the cluster' if self._grows else 'give --address'}")

    def _ask(self) -> None:
        """Request one core on each node, which makes an autoscaler start the nodes and keep them."""
        if self._asked is None:
            with explained(self._ray):
                self._asked = self._ray.util.placement_group([{"CPU": 1}] * self._wanted, strategy="STRICT_SPREAD")

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        if missing := self._missing():
            what = f"waits for {missing} of {self._wanted} nodes"
            log.warning("%s, for at most %s (engine.nodes_timeout_s)", what, duration(seconds))
        while self._missing() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_LOOK_EVERY_S, left))
            self._head.check()

    def _missing(self) -> int:
        return nodes_missing(self._engine, nodes_of(self._ray))

    def end(self) -> None:
        """Ask for no nodes any more: an autoscaler may remove those that are idle."""
        asked, self._asked = self._asked, None
        if asked is not None:
            with suppress(RunError):  # a dead head has forgotten it, and removing it would wait for a minute
                self._head.check()
                self._ray.util.remove_placement_group(asked)
