"""A hook for `ray start` that keeps the traffic between nodes on this machine on loopback.

With RAY_START_HOOK=fedsim.jobs.loopback.stay it is called before anything is started. Without it, Ray replaces
127.0.0.1 with this machine's address in its network and listens on every interface.
"""

from typing import Any

import ray

from fedsim.engine.ray.private import stay_on_loopback


def stay(parameters: Any, _head: bool) -> None:  # noqa: ANN401 - Ray's own parameters of a node
    """Give the node that is about to start, and whatever connects to it, the address of loopback."""
    stay_on_loopback(ray, parameters)
