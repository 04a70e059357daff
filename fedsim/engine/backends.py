"""Choosing where hosts live."""

from fedsim.core.errors import InputError
from fedsim.engine.backend import Backend
from fedsim.engine.serial import SerialBackend
from fedsim.workload.engine import Engine


def make_backend(engine: Engine, address: str | None = None) -> Backend:
    """The backend that the workload names.

    Raises:
        InputError: there is an address, and the backend is serial.
    """
    if engine.backend == "ray":
        from fedsim.engine.ray.backend import RayBackend  # noqa: PLC0415 - Ray only where it is used

        return RayBackend(engine, address)
    if address is not None:
        raise InputError(f"--address {address}: needs engine.backend=ray")
    return SerialBackend(engine)
