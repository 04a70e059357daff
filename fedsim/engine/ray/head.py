"""Waiting on Ray while noticing that its head has died: Ray itself waits for a minute, then kills its driver."""

import math
import socket
import time
from typing import Any

from fedsim.core.errors import RunError
from fedsim.engine.ray.errors import explained
from fedsim.engine.ray.private import dead_processes

_LOOK_EVERY_S = 1.0
_NEEDED = ("gcs_server", "raylet")


class Head:
    """Ray's essential processes: the cluster's gcs_server, and the raylet of a Ray started here."""

    def __init__(self, ray: Any) -> None:  # noqa: ANN401 - the module ray
        self._ray, self._looked = ray, time.monotonic()
        self._address: str = ray.get_runtime_context().gcs_address

    def check(self) -> None:
        """Make sure that they are running.

        Raises:
            RunError: one has died.
        """
        self._looked = time.monotonic()
        dead = [kind for kind in dead_processes(self._ray) if kind in _NEEDED]
        if dead or self._refused():
            gone = dead[0] if dead else f"gcs_server at {self._address}"
            raise RunError(f"Ray has lost an essential process ({gone}); continue with --resume")

    def _refused(self) -> bool:
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except ConnectionRefusedError:
            return True
        except OSError:  # a slow network is Ray's affair
            return False
        return False

    def wait(self, refs: list[Any], count: int, within: float = math.inf) -> list[Any]:
        """Wait until `count` of the references are ready, or for at most `within` [s]; returns those that are.

        Raises:
            RunError: one of Ray's essential processes has died.
        """
        deadline, found = time.monotonic() + within, list[Any]()
        while len(found) < count:
            left = deadline - time.monotonic()
            patience = max(0.0, min(_LOOK_EVERY_S, left))
            found, _ = self._ray.wait(refs, num_returns=count, timeout=patience, fetch_local=False)
            if time.monotonic() - self._looked > _LOOK_EVERY_S:
                self.check()
            if left <= 0:
                break
        return found

    def get(self, refs: Any, client: str = "") -> Any:  # noqa: ANN401 - references to anything
        """The value of a reference, or those of a list of them.

        Args:
            refs: The reference, or the list.
            client: The client that is being worked for; empty if none.

        Raises:
            WorkerLostError: a process or a node was lost.
            RunError: the run cannot continue.
            InputError: the input is wrong.
        """
        with explained(self._ray, client):
            while True:
                try:
                    return self._ray.get(refs, timeout=_LOOK_EVERY_S)
                except self._ray.exceptions.GetTimeoutError:
                    self.check()
