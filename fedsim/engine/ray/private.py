"""Every private name of Ray that fedsim uses: any release of Ray may rename or remove them.

Checked with Ray 2.60.0; pyproject.toml admits no other minor version. To admit a newer one, raise the bound there and
`CHECKED` here, and run tests/engine/ray and tests/jobs.
"""

import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

CHECKED = "2.60"
"""The minor version of Ray that these names were checked with."""

NO_CLUSTER: Mapping[str, str] = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Environment in which Ray's processes bind to loopback only, and a driver finds its node at 127.0.0.1."""

_LOOPBACK = "127.0.0.1"


def init_in(folder: str) -> dict[str, str]:
    """The argument of `ray.init` that puts Ray's sockets, logs and spilled objects into a folder."""
    return {"_temp_dir": folder}


def memory_seen(ray: ModuleType) -> float:
    """The memory that Ray takes this machine to have [bytes]: it knows a container's limit, but not a job's."""
    return float(ray._common.utils.get_system_memory())


def counting(memory: int) -> dict[str, int]:
    """The argument of `ray.init` that says how much memory actors may reserve [bytes]."""
    return {"_memory": memory}


def streaming_ahead(items: int) -> dict[str, int]:
    """The option of an actor's method that lets its generator run ahead of its reader by a number of items."""
    return {"_generator_backpressure_num_objects": items}


def call_in(actor: Any, function: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - an actor's handle; a reference
    """Call a function in an actor's process with the actor's instance; returns a reference to its result."""
    return actor.__ray_call__.remote(function)


def refuses(address: str, token: str) -> bool:
    """Whether a cluster refuses a token; Ray itself would ask twenty times, and not say so.

    Args:
        address: HOST:PORT; for other words the answer is no.
        token: Empty if there is none.
    """
    import grpc  # noqa: PLC0415 - comes with Ray, and only if it is used

    if not address.rpartition(":")[2].isdigit():
        return False
    said = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", metadata=said, timeout=10)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False


def set_clusters(ray: ModuleType, allowed: bool) -> bool:
    """Set whether Ray may bind to interfaces other than loopback, which it decides on import; returns the old value."""
    constants = ray._private.ray_constants
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, allowed
    return bool(before)


def read_environment_again(ray: ModuleType) -> None:
    """Make Ray forget the authentication mode and the token that it first saw in this process."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def dead_processes(ray: ModuleType) -> list[str]:
    """Kinds of the processes, `raylet` for example, that this process started for Ray and that have died."""
    node = ray._private.worker._global_node
    return [kind for kind, _ in node.dead_processes()] if node else []


def stay_on_loopback(ray: ModuleType, parameters: Any) -> None:  # noqa: ANN401 - ray._private.parameter.RayParams
    """Bind the node that `ray start` is about to start, and what connects to it, to the loopback address.

    Args:
        ray: The module.
        parameters: What a RAY_START_HOOK receives; changed in place.
    """
    parameters.node_ip_address = _LOOPBACK
    parameters.ray_client_server_port = None  # Ray Client is not used, and would take a fixed port
    ray._private.services.get_node_ip_address = lambda *_: _LOOPBACK
    os.environ.update(NO_CLUSTER)
