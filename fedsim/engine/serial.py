"""All clients in this process: the readable reference, and the backend to use with a debugger."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch

from fedsim.algorithms.base import Vector
from fedsim.core.errors import InputError
from fedsim.engine.backend import Backend, limits_of
from fedsim.engine.clients.sequence import Clients, Listed
from fedsim.engine.host.faulty import host_class
from fedsim.engine.host.host import Host
from fedsim.engine.host.messages import NOTHING, Message, Reply, Row, Setup, Train
from fedsim.engine.place.gpus import hidden_text
from fedsim.engine.place.machine import memory_here
from fedsim.engine.place.placement import device_of
from fedsim.engine.plan.memory import work_bytes
from fedsim.workload.engine import Engine


class SerialBackend(Backend):
    """One host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = torch.get_num_threads()
        self._host: Host | None = None
        self._clients: Clients = Listed(())

    def start(self, setup: Setup, clients: Clients) -> None:
        """One host."""
        self._clients = clients
        if self._host is not None:
            return
        setup = replace(setup, device=device_of(self._engine, []))
        if setup.device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"engine.device: cuda needs a GPU, and torch knows of none{hidden_text()}; set it to auto or cpu"
            )
        limits = limits_of(self._engine, memory_here(), 1, work_bytes(setup, clients.typical))
        self._host = host_class(setup)(setup, clients.typical if clients.listed else (), limits)

    def clients(self) -> Iterable[str]:
        """Those of the host."""
        return self._host.clients() if self._host is not None else ()

    def call(self, message: Message, broadcast: Mapping[str, Vector] = NOTHING) -> Iterator[Reply]:
        """The one host answers."""
        assert self._host is not None, "start comes first"
        there = set(self._host.clients())
        self._host.admit([self._clients.named(name) for name in message.clients if name not in there])
        yield from self._host.handle(message, broadcast)
        if isinstance(message, Train):
            yield Reply(sums=self._host.partial_sums())

    def learn(self, rows: Iterable[Row]) -> None:
        """Ignored: there is nothing to schedule."""

    def slots(self) -> int:
        """One."""
        return 1

    def close(self) -> None:
        """Restore torch's number of threads, and its choice of kernels."""
        torch.set_num_threads(self._threads)
        if self._host is not None:
            self._host.close()
