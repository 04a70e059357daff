"""A Ray whose head is gone is noticed while waiting for it."""

import socket

import pytest

from fedsim.core.errors import RunError
from fedsim.engine.ray.backend import RayBackend
from fedsim.workload.engine import Engine


@pytest.mark.usefixtures("ray_session")
def test_a_head_that_refuses_is_gone() -> None:
    """While a call that never ends is waited for."""
    backend = RayBackend(Engine())
    never = backend._ray.remote(num_cpus=0)(lambda: __import__("time").sleep(600)).remote()
    backend._head.check()
    assert backend._head.wait([never], 1, within=0.1) == []
    with socket.create_server(("127.0.0.1", 0)) as free:
        backend._head._address = f"127.0.0.1:{free.getsockname()[1]}"
        backend._head.check()
    with pytest.raises(RunError, match=r"lost an essential process \(gcs_server at 127.0.0.1:\d+\); continue"):
        backend._head.get(never)
    backend._ray.cancel(never, force=True)
