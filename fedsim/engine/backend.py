"""Where hosts live: in this process (`serial`) or as Ray actors (`ray`). Both give the same bits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from fedsim.algorithms.base import Vector
from fedsim.core.errors import InputError
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.host import Host
from fedsim.engine.host.messages import Limits, Row, Setup
from fedsim.engine.place.machine import memory_here
from fedsim.engine.place.placement import device_of
from fedsim.workload.engine import Engine

Arguments = tuple[Any, ...]
ArgumentsOf = Callable[[tuple[str, ...]], Arguments]
"""The arguments of a call to a host, given the names of its clients that take part."""

_GB = 1e9
_STATE_SHARE, _SLICE_SHARE = 0.5, 0.2  # of a node's memory, where the workload does not say


class Backend(ABC):
    """Hosts and how to call them."""

    @abstractmethod
    def start(self, setup: Setup, clients: tuple[ClientSpec, ...]) -> None:
        """Bring up hosts for the clients; those that are up and idle stay, with whatever state their clients have.

        Raises:
            WorkerLostError: a process was lost meanwhile.
        """

    @abstractmethod
    def share(self, vectors: Mapping[str, Vector]) -> Any:  # noqa: ANN401 - a reference that only the backend reads
        """Put vectors where every host can read them; pass the result among a call's arguments."""

    @abstractmethod
    def call(self, method: str, names: tuple[str, ...], arguments: ArgumentsOf) -> Iterator[Any]:
        """Call a method of every host that has one of the named clients; its pieces as they come, in any order.

        Raises:
            WorkerLostError: a host's process is gone.
            ClientError: a client failed.
        """

    @abstractmethod
    def learn(self, rows: Iterable[Row]) -> None:
        """Take up from the ledger how long clients take."""

    @abstractmethod
    def slots(self) -> int:
        """How many clients can train at once."""

    @abstractmethod
    def close(self) -> None:
        """Release what was started."""


class SerialBackend(Backend):
    """One host with all clients in this process: the readable reference, and the one for a debugger."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = torch.get_num_threads()
        self._host: Host | None = None

    def start(self, setup: Setup, clients: tuple[ClientSpec, ...]) -> None:
        """One host."""
        if self._host is not None:
            return
        limits = limits_of(self._engine, memory_here(), 1)
        device = device_of(self._engine, [])
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("engine.device: cuda needs a GPU, and torch knows of none; say auto or cpu")
        self._host = Host(replace(setup, device=device), clients, limits)

    def share(self, vectors: Mapping[str, Vector]) -> Mapping[str, Vector]:
        """The vectors themselves."""
        return vectors

    def call(self, method: str, names: tuple[str, ...], arguments: ArgumentsOf) -> Iterator[Any]:
        """One call."""
        yield from getattr(self._host, method)(*arguments(names))
        if method == "train" and self._host is not None:
            yield self._host.partial_sums()

    def learn(self, rows: Iterable[Row]) -> None:
        """There is nothing to choose here."""

    def slots(self) -> int:
        """One."""
        return 1

    def close(self) -> None:
        """Give torch its threads back."""
        torch.set_num_threads(self._threads)


def limits_of(engine: Engine, memory: float, hosts: int) -> Limits:
    """What each of some hosts may use of a node with so much memory [bytes]."""
    states = _STATE_SHARE * memory if engine.state_memory is None else engine.state_memory * _GB
    slices = _SLICE_SHARE * memory if engine.slice_memory is None else engine.slice_memory * _GB
    told_apart = engine.on_failure == "drop" or engine.client_timeout_s is not None
    return Limits(states / hosts, slices / hosts, engine.scratch, 0.0 if told_apart else 1.0)
