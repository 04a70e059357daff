"""Hosts as Ray actors: where they are placed, and who of them works when."""

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedsim.algorithms.base import Vector
from fedsim.algorithms.catalogue import is_own
from fedsim.config import Engine
from fedsim.engine.backends import ArgumentsOf, Backend, WorkerLostError, limits_of
from fedsim.engine.client import ClientSpec
from fedsim.engine.cluster import connect
from fedsim.engine.host import Host
from fedsim.engine.messages import Limits, Row, Setup
from fedsim.engine.placement import Node, Place, device_of, placed
from fedsim.engine.schedule import Expectations, balance
from fedsim.errors import InputError, RunError

_WINDOW = 4  # pieces of an answer that a host may be ahead of the driver


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
        nodes = list(self._nodes.values())
        setup = replace(setup, device=device_of(self._engine, nodes))
        if self._engine.device == "cuda" and setup.device != "cuda":
            raise InputError("engine.device: cuda needs a GPU, and Ray knows of none; say auto or cpu")
        places = placed(self._engine, clients, nodes, setup.device)
        if sum(len(place.clients) for place in places) < len(clients):
            raise InputError("resources.gpus: no node has the GPUs that some clients ask for; ask for a smaller share")
        limits = self._limits(len(places))
        width = 2 * self.slots()
        for first in range(0, len(places), width):  # a wave at a time: mass creation starves Ray's start-up
            self._actors += self._wave(places[first : first + width], nodes, setup, limits)

    def _wave(self, places: list[Place], nodes: list[Node], setup: Setup, limits: Limits) -> list[_Actor]:
        remote = self._ray.remote(Host)
        handles = [
            remote.options(**self._options(place, nodes)).remote(setup, place.clients, limits) for place in places
        ]
        homes = self._get([handle.__ray_call__.remote(_node_id) for handle in handles])
        return [
            _Actor(handle, home, dict.fromkeys(client.name for client in place.clients), place.cpus)
            for handle, home, place in zip(handles, homes, places, strict=True)
        ]

    def _options(self, place: Place, nodes: list[Node]) -> dict[str, Any]:
        pinned = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(nodes[place.node].id, soft=False)
        return {
            "num_cpus": 0, "num_gpus": place.gpus, "memory": math.ceil(place.memory) or None, "max_restarts": 0,
            "scheduling_strategy": pinned if place.pinned else "SPREAD",
        }  # fmt: skip

    def _limits(self, actors: int) -> Limits:
        """An even share of a node's memory for each of its actors."""
        memory = min(node.memory for node in self._nodes.values())
        return limits_of(self._engine, memory, math.ceil(actors / len(self._nodes)))

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


def _node_id(host: Host) -> str:
    import ray  # noqa: PLC0415 - runs in the actor

    return str(ray.get_runtime_context().get_node_id())
