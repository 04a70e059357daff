"""What `ray start` calls, so that the nodes of a cluster on this machine talk over loopback alone.

RAY_START_HOOK=fedsim.jobs.loopback.stay has it called before anything is started. Without it Ray takes 127.0.0.1, where
it is asked to use it, for this machine's address in its network, and listens on every interface there is.
"""

import os
from typing import Any

import ray

_HOST = "127.0.0.1"


def stay(parameters: Any, _head: bool) -> None:  # noqa: ANN401 - ray._private.parameter.RayParams
    """Give the node that is about to start the address of loopback, and whatever connects to it the same idea."""
    parameters.node_ip_address = _HOST
    parameters.ray_client_server_port = None  # of Ray Client, which nothing here uses; it would be a fixed one
    ray._private.services.get_node_ip_address = lambda *_: _HOST
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # where it is off, Ray looks for its node at 127.0.0.1
