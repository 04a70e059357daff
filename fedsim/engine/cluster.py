"""Finding Ray, or starting it on this machine."""

import logging
import os
import socket
from typing import Any

from fedsim.errors import InputError, RunError

# One loopback node: Ray reads this before it is imported, and then binds nothing to other interfaces.
_LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def connect(address: str | None) -> tuple[Any, bool]:
    """The module ray, and whether it was started here: on loopback, with this job's cores and a token.

    Without an address, a Ray that already runs in this process is used as it is.
    """
    if address is None:
        os.environ.update(_LOOPBACK_ONLY)
    else:
        _check_reachable(address)
    import ray  # noqa: PLC0415 - after the environment is set, and only if Ray is used

    if ray.is_initialized():
        if address is not None:
            raise RunError(f"--address {address}: Ray is already running in this process; call ray.shutdown() first")
        return ray, False
    if address is not None:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from error
        return ray, True
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ray.init("local", num_cpus=cores, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    return ray, True


def _check_reachable(address: str) -> None:
    """Ray itself keeps trying for a minute; `auto` and other words are left to it."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from error
