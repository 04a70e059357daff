"""Where hosts live: in this process (`serial`) or as Ray actors (`ray`). Both give the same bits."""

import logging
import math
import os
import socket
import sys
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from fedsim.algorithms.base import Vector
from fedsim.algorithms.catalogue import is_own
from fedsim.config import Engine
from fedsim.engine.client import ClientSpec
from fedsim.engine.host import Host, Setup
from fedsim.errors import InputError, RunError

# One loopback node: Ray reads this before it is imported, and then binds nothing to other interfaces.
_LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

Arguments = tuple[Any, ...]
ArgumentsOf = Callable[[tuple[str, ...]], Arguments]
"""The arguments of a call to a host, given the names of its clients that take part."""


class WorkerLostError(Exception):
    """A process that hosted clients is gone, and their private state with it."""


class Backend(ABC):
    """Hosts and how to call them."""

    @abstractmethod
    def start(self, setup: Setup, clients: tuple[ClientSpec, ...]) -> None:
        """Bring up hosts for the clients, in their initial state; replaces any that exist."""

    @abstractmethod
    def share(self, vectors: Mapping[str, Vector]) -> Any:  # noqa: ANN401 - a reference that only the backend reads
        """Put vectors where every host can read them; pass the result among a call's arguments."""

    @abstractmethod
    def call(self, method: str, names: tuple[str, ...], arguments: ArgumentsOf) -> Iterator[Any]:
        """Call a method of every host that has one of the named clients; results as they come, in any order.

        Raises:
            WorkerLostError: a host's process is gone.
            RunError: a client failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what was started."""


class SerialBackend(Backend):
    """One host with all clients in this process: the readable reference, and the one for a debugger."""

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()

    def start(self, setup: Setup, clients: tuple[ClientSpec, ...]) -> None:
        """One host."""
        self._host = Host(setup, clients)

    def share(self, vectors: Mapping[str, Vector]) -> Mapping[str, Vector]:
        """The vectors themselves."""
        return vectors

    def call(self, method: str, names: tuple[str, ...], arguments: ArgumentsOf) -> Iterator[Any]:
        """Client by client, so that progress shows."""
        for name in names:
            yield getattr(self._host, method)(*arguments((name,)))

    def close(self) -> None:
        """Give torch its threads back."""
        torch.set_num_threads(self._threads)


class RayBackend(Backend):
    """Hosts as Ray actors, spread over the nodes; on each node as many calls at a time as it has slots."""

    def __init__(self, engine: Engine, address: str | None = None) -> None:
        self._engine = engine
        self._ray, self._owned = connect(address)
        self._hosts: dict[Any, tuple[str, ...]] = {}
        self._nodes: dict[Any, str] = {}

    def start(self, setup: Setup, clients: tuple[ClientSpec, ...]) -> None:
        """One actor for every `clients_per_actor` clients; actors that are still there are ended first."""
        self._end_actors()
        if is_own(setup.algorithm.name):  # its module may not be importable where the actors are
            self._ray.cloudpickle.register_pickle_by_value(sys.modules[type(setup.algorithm).__module__])
        remote = self._ray.remote(Host)
        size = self._engine.clients_per_actor
        groups = [clients[i : i + size] for i in range(0, len(clients), size)]
        options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self._slots = self._slots_by_node()
        width = 2 * self.slots()
        for first in range(0, len(groups), width):  # a wave at a time: mass creation starves Ray's start-up
            wave = groups[first : first + width]
            hosts = [remote.options(**options).remote(setup, group) for group in wave]
            for host, group, node in zip(
                hosts, wave, self._get([h.__ray_call__.remote(_node_id) for h in hosts]), strict=True
            ):
                self._hosts[host] = tuple(client.name for client in group)
                self._nodes[host] = node

    def share(self, vectors: Mapping[str, Vector]) -> Any:  # noqa: ANN401 - a Ray reference
        """One object in the store; readers map it without copying."""
        return self._ray.put(dict(vectors))

    def call(self, method: str, names: tuple[str, ...], arguments: ArgumentsOf) -> Iterator[Any]:
        """Bounded: a node's next call starts when one of its calls is done."""
        wanted = set(names)
        waiting: dict[str, deque[tuple[Any, tuple[str, ...]]]] = defaultdict(deque)
        for host, hosted in self._hosts.items():
            mine = tuple(name for name in hosted if name in wanted)
            if mine:
                waiting[self._nodes[host]].append((host, mine))
        running: dict[Any, str] = {}

        def launch(node: str) -> None:
            if waiting[node]:
                host, mine = waiting[node].popleft()
                running[getattr(host, method).remote(*arguments(mine))] = node

        for node in list(waiting):
            for _ in range(self._slots.get(node, 1)):
                launch(node)
        while running:
            (done,), _ = self._ray.wait(list(running), num_returns=1, fetch_local=False)
            node = running.pop(done)
            result = self._get(done)
            launch(node)
            yield result

    def close(self) -> None:
        """End the actors, and the connection to Ray (Ray itself, if it was started here)."""
        self._end_actors()
        if self._owned:
            self._ray.shutdown()

    def _end_actors(self) -> None:
        for host in self._hosts:
            self._ray.kill(host)
        self._hosts, self._nodes = {}, {}

    def slots(self) -> int:
        """How many clients can train at once, over all nodes."""
        return sum(self._slots_by_node().values())

    def _slots_by_node(self) -> dict[str, int]:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        cores = {node["NodeID"]: node["Resources"].get("CPU", 0) for node in nodes}
        return {node: max(1, math.floor(count / self._engine.threads)) for node, count in cores.items() if count}

    def _get(self, refs: Any) -> Any:  # noqa: ANN401 - references to anything
        errors = self._ray.exceptions
        try:
            return self._ray.get(refs)
        except (errors.ActorDiedError, errors.ActorUnavailableError, errors.ObjectLostError) as error:
            message = " ".join(str(error).split())[:300]
            raise (RunError if "creation task" in message else WorkerLostError)(message) from error
        except errors.RayTaskError as error:
            if isinstance(error.cause, RunError | InputError):
                raise error.cause from error
            raise RunError(f"{type(error.cause).__name__}: {error.cause}") from error


def _node_id(host: Host) -> str:
    import ray  # noqa: PLC0415 - runs in the actor

    return str(ray.get_runtime_context().get_node_id())


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


def make_backend(engine: Engine, address: str | None = None) -> Backend:
    """The backend that the workload names."""
    if engine.backend == "ray":
        return RayBackend(engine, address)
    if address is not None:
        raise InputError(f"--address {address}: needs engine.backend=ray")
    return SerialBackend()
