"""Where hosts live: in this process (`serial`) or as Ray actors (`ray`). Both give the same bits."""

import math
import sys
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch

from fedsim.algorithms.base import Vector
from fedsim.algorithms.catalogue import is_own
from fedsim.config import Engine
from fedsim.engine.client import ClientSpec
from fedsim.engine.cluster import connect
from fedsim.engine.host import Host, Limits, Row, Setup
from fedsim.engine.schedule import Expectations, balance, spread
from fedsim.errors import InputError, RunError
from fedsim.resources import Resources

Arguments = tuple[Any, ...]
ArgumentsOf = Callable[[tuple[str, ...]], Arguments]
"""The arguments of a call to a host, given the names of its clients that take part."""

_WINDOW = 4  # pieces of an answer that a host may be ahead of the driver
_GB = 1e9
_STATE_SHARE, _SLICE_SHARE = 0.5, 0.2  # of what Ray counts as a node's memory, where the workload does not say


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
        """Call a method of every host that has one of the named clients; its pieces as they come, in any order.

        Raises:
            WorkerLostError: a host's process is gone.
            RunError: a client failed.
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

    def start(self, setup: Setup, clients: tuple[ClientSpec, ...]) -> None:
        """One host."""
        given = self._engine.state_memory
        limits = Limits(math.inf if given is None else given * _GB, math.inf, self._engine.scratch)
        device = "cuda" if self._engine.device == "cuda" else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("engine.device: cuda needs a GPU, and torch knows of none; say auto or cpu")
        self._host = Host(replace(setup, device=device), clients, limits)

    def share(self, vectors: Mapping[str, Vector]) -> Mapping[str, Vector]:
        """The vectors themselves."""
        return vectors

    def call(self, method: str, names: tuple[str, ...], arguments: ArgumentsOf) -> Iterator[Any]:
        """One call."""
        yield from getattr(self._host, method)(*arguments(names))
        if method == "train":
            yield self._host.partial_sums()

    def learn(self, rows: Iterable[Row]) -> None:
        """There is nothing to choose here."""

    def slots(self) -> int:
        """One."""
        return 1

    def close(self) -> None:
        """Give torch its threads back."""
        torch.set_num_threads(self._threads)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, as Ray counts what it has."""

    id: str
    cpus: float
    gpus: float
    memory: float

    def places(self, needs: Resources, threads: int, device: str) -> int:
        """How many clients with such needs can train at once here; where any can, at least one."""
        if device == "cuda":
            return math.floor(self.gpus / _gpus(needs, device)) if _gpus(needs, device) else 0
        return max(1, math.floor(self.cpus / (needs.cpus or threads)))


@dataclass
class _Actor:
    """A host elsewhere: where it is, whom it has, and how many cores a call to it takes."""

    handle: Any
    node: str
    clients: dict[str, None]
    cpus: float


@dataclass(frozen=True)
class _Call:
    """A call under way, and what is to be fetched when it is over."""

    actor: _Actor
    last: Any | None


class RayBackend(Backend):
    """Hosts as Ray actors, spread over the nodes; on each node as many calls at a time as it has cores for."""

    def __init__(self, engine: Engine, address: str | None = None) -> None:
        self._engine = engine
        self._ray, self._owned = connect(address)
        self._actors: list[_Actor] = []
        self._nodes: dict[str, Node] = {}

    # Placement

    def start(self, setup: Setup, clients: tuple[ClientSpec, ...]) -> None:
        """Actors as `engine.clients_per_actor` says; those that are still there are ended first."""
        self._end_actors()
        if is_own(setup.algorithm.name):  # its module may not be importable where the actors are
            self._ray.cloudpickle.register_pickle_by_value(sys.modules[type(setup.algorithm).__module__])
        self._nodes = {node.id: node for node in self._alive()}
        self._expected = Expectations(clients)
        setup = replace(setup, device=self._device())
        groups = self._pinned(clients, setup.device) if self._engine.clients_per_actor == "auto" else self._cut(clients)
        limits = self._limits(len(groups))
        width = 2 * self.slots()
        for first in range(0, len(groups), width):  # a wave at a time: mass creation starves Ray's start-up
            self._actors += self._wave(groups[first : first + width], setup, limits)

    def _cut(self, clients: tuple[ClientSpec, ...]) -> list[tuple[str | None, list[ClientSpec]]]:
        """So many clients an actor, in their order, those with unlike needs apart; Ray chooses the nodes."""
        size = int(self._engine.clients_per_actor)
        alike = [list(group) for _, group in groupby(clients, lambda client: client.resources)]
        return [(None, group[at : at + size]) for group in alike for at in range(0, len(group), size)]

    def _pinned(self, clients: tuple[ClientSpec, ...], device: str) -> list[tuple[str | None, list[ClientSpec]]]:
        """As many actors as can train at once, each on its node, with equal shares of the work."""
        alike: dict[Resources, list[ClientSpec]] = defaultdict(list)
        for client in clients:
            alike[client.resources].append(client)
        groups: list[tuple[str | None, list[ClientSpec]]] = []
        for needs, members in alike.items():
            counts = {node.id: node.places(needs, self._engine.threads, device) for node in self._nodes.values()}
            places = [node for turn in range(max(counts.values())) for node, count in counts.items() if turn < count]
            if not places:
                raise InputError(f"resources.gpus: no node has {_gpus(needs, device):g} GPUs; ask for a smaller share")
            dealt = spread(members, [1.0] * min(len(places), len(members)))
            groups += zip(places, dealt, strict=False)
        return groups

    def _wave(self, groups: list[tuple[str | None, list[ClientSpec]]], setup: Setup, limits: Limits) -> list[_Actor]:
        remote = self._ray.remote(Host)
        handles = [
            remote.options(**self._options(node, group, setup.device)).remote(setup, tuple(group), limits)
            for node, group in groups
        ]
        nodes = self._get([handle.__ray_call__.remote(_node_id) for handle in handles])
        return [
            _Actor(handle, node, dict.fromkeys(client.name for client in group), self._cpus(group))
            for handle, node, (_, group) in zip(handles, nodes, groups, strict=True)
        ]

    def _options(self, node: str | None, group: list[ClientSpec], device: str) -> dict[str, Any]:
        strategies = self._ray.util.scheduling_strategies
        memory = max(client.resources.memory or 0 for client in group)
        return {
            "num_cpus": 0, "max_restarts": 0, "num_gpus": max(_gpus(client.resources, device) for client in group),
            "memory": math.ceil(memory * _GB) or None,
            "scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(node, soft=False) if node else "SPREAD",
        }  # fmt: skip

    def _cpus(self, group: list[ClientSpec]) -> float:
        return max(client.resources.cpus or self._engine.threads for client in group)

    def _limits(self, actors: int) -> Limits:
        """An even share of a node's memory for each of its actors."""
        memory = min(node.memory for node in self._nodes.values())
        share = 1 / math.ceil(actors / len(self._nodes))
        states, slices = self._engine.state_memory, self._engine.slice_memory
        return Limits(
            share * (_STATE_SHARE * memory if states is None else states * _GB),
            share * (_SLICE_SHARE * memory if slices is None else slices * _GB),
            self._engine.scratch,
        )

    def _device(self) -> str:
        gpus = sum(node.gpus for node in self._nodes.values())
        if self._engine.device == "cuda" and not gpus:
            raise InputError("engine.device: cuda needs a GPU, and Ray knows of none; say auto or cpu")
        return "cuda" if gpus and self._engine.device != "cpu" else "cpu"

    # Calls

    def share(self, vectors: Mapping[str, Vector]) -> Any:  # noqa: ANN401 - a Ray reference
        """One object in the store; readers map it without copying."""
        return self._ray.put(dict(vectors))

    def learn(self, rows: Iterable[Row]) -> None:
        """From the last phase's rows."""
        parts = ("load_seconds", "train_seconds", "send_seconds")
        seconds = {row["client"]: sum(row[part] for part in parts) for row in rows}
        self._expected.learn(seconds, {row["client"]: row["private_bytes"] for row in rows})

    def call(self, method: str, names: tuple[str, ...], arguments: ArgumentsOf) -> Iterator[Any]:
        """Longest first; a node's next call starts when one of its calls is done."""
        wanted = set(names)
        moved = self._rebalance(wanted) if method == "train" and self._expected.measured else []
        waiting: dict[str, list[tuple[_Actor, tuple[str, ...]]]] = defaultdict(list)
        for actor in self._actors:
            mine = tuple(name for name in actor.clients if name in wanted)
            if mine:
                waiting[actor.node].append((actor, mine))
        for queue in waiting.values():
            queue.sort(key=lambda call: -sum(map(self._expected.seconds, call[1])))
        running: dict[Any, _Call] = {}
        for node, queue in waiting.items():
            self._launch(method, queue, running, node, arguments)
        while running:
            (ready,), _ = self._ray.wait(list(running), num_returns=1, fetch_local=False)
            try:
                piece = next(ready)
            except StopIteration:
                done = running.pop(ready)
                self._launch(method, waiting[done.actor.node], running, done.actor.node, arguments)
                if done.last is not None:
                    yield self._get(done.last)
                continue
            yield self._get(piece)
        self._get(moved)

    def _launch(
        self,
        method: str,
        waiting: list[tuple[_Actor, tuple[str, ...]]],
        running: dict[Any, "_Call"],
        node: str,
        arguments: ArgumentsOf,
    ) -> None:
        """Start the calls that the node has cores for; one that wants more than there are goes alone."""
        here = [call.actor.cpus for call in running.values() if call.actor.node == node]
        free, idle = self._nodes[node].cpus - sum(here), not here
        for call in list(waiting):
            actor, mine = call
            if actor.cpus <= free or idle:
                remote = getattr(actor.handle, method).options(_generator_backpressure_num_objects=_WINDOW)
                pieces = remote.remote(*arguments(mine))
                running[pieces] = _Call(actor, actor.handle.partial_sums.remote() if method == "train" else None)
                waiting.remove(call)
                free, idle = free - actor.cpus, False

    def _rebalance(self, wanted: set[str]) -> list[Any]:
        """Move clients between actors that train at the same time, where that saves more than it costs.

        The private state goes through a file of the node, never through Ray; what is returned tells when.
        """
        moved: list[Any] = []
        for node in self._nodes.values():
            actors = [actor for actor in self._actors if actor.node == node.id]
            if len({actor.cpus for actor in actors}) != 1 or len(actors) * actors[0].cpus > node.cpus:
                continue  # they wait for each other anyway, or may not take each other's clients
            queues = [[name for name in actor.clients if name in wanted] for actor in actors]
            for move in balance(queues, self._expected.seconds, self._expected.move_seconds):
                source, target = actors[move.source], actors[move.target]
                moved.append(target.handle.take_over.remote(source.handle.hand_over.remote([move.client])))
                del source.clients[move.client]
                target.clients[move.client] = None
        return moved

    def close(self) -> None:
        """End the actors, and the connection to Ray (Ray itself, if it was started here)."""
        self._end_actors()
        if self._owned:
            self._ray.shutdown()

    def _end_actors(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors = []

    def slots(self) -> int:
        """How many clients of ordinary needs can train at once, over all nodes."""
        nodes = self._nodes.values() or self._alive()
        return sum(max(1, math.floor(node.cpus / self._engine.threads)) for node in nodes)

    def _alive(self) -> list[Node]:
        alive = [(node["NodeID"], node["Resources"]) for node in self._ray.nodes() if node["Alive"]]
        return [
            Node(node, has["CPU"], has.get("GPU", 0), has.get("memory", 0)) for node, has in alive if has.get("CPU")
        ]

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


def _gpus(needs: Resources, device: str) -> float:
    """GPUs that an actor reserves; Ray shows it only those."""
    return 0.0 if device == "cpu" else 1.0 if needs.gpus is None else needs.gpus


def _node_id(host: Host) -> str:
    import ray  # noqa: PLC0415 - runs in the actor

    return str(ray.get_runtime_context().get_node_id())


def make_backend(engine: Engine, address: str | None = None) -> Backend:
    """The backend that the workload names."""
    if engine.backend == "ray":
        return RayBackend(engine, address)
    if address is not None:
        raise InputError(f"--address {address}: needs engine.backend=ray")
    return SerialBackend(engine)
