"""Hosts as Ray actors: where they are placed, and in which order they work."""

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fedsim.algorithms.base import Vector
from fedsim.core.errors import InputError, RunError, WorkerLostError
from fedsim.core.extension import own_modules
from fedsim.engine.backend import Backend, limits_of
from fedsim.engine.clients.sequence import Clients, Listed
from fedsim.engine.host.faulty import host_class
from fedsim.engine.host.host import Host
from fedsim.engine.host.messages import NOTHING, Limits, Message, Reply, Row, Setup, Train
from fedsim.engine.observer import Observer
from fedsim.engine.place.gpus import hidden_text
from fedsim.engine.place.machine import nodes_of
from fedsim.engine.place.node import CUDA_BYTES, Node
from fedsim.engine.place.placement import Placement, device_of, granted, placed, unlabelled, unplaced, usable
from fedsim.engine.place.schedule import balance
from fedsim.engine.plan.memory import work_bytes
from fedsim.engine.ray.adder import handing_in
from fedsim.engine.ray.alike import check_alike
from fedsim.engine.ray.calls import Actor, Call, Calls, Outgoing, Queues
from fedsim.engine.ray.cluster import connect, disconnect
from fedsim.engine.ray.errors import explained
from fedsim.engine.ray.gathering import Gathering
from fedsim.engine.ray.head import Head
from fedsim.engine.ray.homes import Homes
from fedsim.engine.ray.metrics import RayMetrics
from fedsim.engine.ray.private import call_in
from fedsim.engine.ray.tree import Tree
from fedsim.workload.engine import Engine
from fedsim.workload.resources import Resources


class RayBackend(Backend):
    """Hosts as Ray actors, spread over the nodes; each node runs as many calls at a time as it has cores for."""

    def __init__(self, engine: Engine, address: str | None = None) -> None:
        self._engine = engine
        self._ray, self._owned = connect(address)
        self._theirs = address not in {None, "local"}  # started elsewhere, perhaps with other software
        self._head = Head(self._ray)
        self.actors: list[Actor] = []
        """The actors that are running."""
        self._nodes: dict[str, Node] = {}
        self._vacant: list[Placement] = []
        self._setup: Setup | None = None
        self._limits = Limits()
        self._clients: Clients = Listed(())
        self._homes = Homes()
        self._tree = Tree(self._ray, self._head)
        self._calls: Calls | None = None
        self._gathering = Gathering(self._ray, self._head, engine, grows=self._theirs or not self._owned)
        try:
            self._gathering.wait()
        except BaseException:
            self.close()
            raise

    def observer(self) -> Observer:
        """Ray's metrics."""
        return RayMetrics()

    # Placement

    def start(self, setup: Setup, clients: Clients) -> None:
        """Start actors as `engine.clients_per_actor` says.

        Actors with a call in progress are killed: its result is no longer wanted, and waiting for it would take longer.
        A lost actor is replaced on its node; if a node is lost, all actors are placed anew.
        """
        self._head.check()
        self._clients = clients
        busy, self._calls = [call.actor for call in self.running.values()], None
        self._tree.end()
        self._vacate(busy)  # first: they wait for their streams to be read, and would answer no question
        self._vacate(self._silent())
        self._gathering.wait(running=bool(self._nodes))
        nodes = self._alive()
        if not nodes:
            raise RunError("no node of the Ray cluster is alive; restart the cluster, and continue with --resume")
        if not self._nodes or self._nodes.keys() - {node.id for node in nodes}:
            self._place(setup, clients, nodes)
        width = 2 * self.slots()
        while self._vacant:  # a wave at a time: mass creation starves Ray's start-up
            self.actors += self._wave(self._vacant[:width])
            del self._vacant[:width]

    def _place(self, setup: Setup, federation: Clients, nodes: list[Node]) -> None:
        """Decide the placement of all actors; none is running after this."""
        self._end_actors()
        if self._theirs:
            check_alike(self._ray, self._head, nodes)
        clients = federation.typical
        data = [section for client in clients for section in client.data.sections]
        training = [part for one in clients[:1] for part in (one.training.sampler, one.training.loss)]
        for module in own_modules([setup.algorithm, setup.model, *training, *data]):  # actors may not have the file
            self._ray.cloudpickle.register_pickle_by_value(sys.modules[module])
        before, self._setup = self._setup, replace(setup, device=device_of(self._engine, nodes))
        if before is not None and before.device != self._setup.device:
            raise RunError(
                f"the nodes with a {before.device} device are gone; bring them back, and continue with --resume"
            )
        self._nodes = {node.id: node for node in nodes}
        if self._engine.device == "cuda" and self._setup.device != "cuda":
            raise InputError(
                f"engine.device: cuda needs a GPU, and Ray knows of none{hidden_text()}; set it to auto or cpu"
            )
        work = work_bytes(self._setup, clients)
        placements = placed(self._engine, clients, nodes, work or CUDA_BYTES)
        self._vacant = sorted(placements, key=lambda placement: -placement.gpus)
        lacking = sum(len(placement.clients) for placement in self._vacant) < len(clients)
        if before is not None and (lacking or unplaced(self._vacant, nodes)):
            raise RunError(
                "the remaining nodes cannot hold all clients (site resources); add nodes, and continue with --resume"
            )
        if lacking:
            gpus = "resources.gpus: no node has the GPUs that some clients ask for; ask for a smaller share"
            raise InputError(unlabelled(clients, nodes) or gpus)
        if not federation.listed:
            self._vacant = [replace(placement, clients=()) for placement in self._vacant]
        memory = min(node.actor_memory for node in nodes)
        hosts = len(self._vacant)
        there = len({placement.node for placement in placements})
        self._limits = limits_of(self._engine, memory, math.ceil(hosts / there), work, all_hosts=hosts)

    def _silent(self) -> list[Actor]:
        """Actors that are lost, or that lack clients because a move was interrupted."""
        asked = [actor.handle.clients.remote() for actor in self.actors]
        silent = []
        for actor, names in zip(self.actors, asked, strict=True):
            with suppress(WorkerLostError):
                if set(self._head.get(names)) == actor.clients.keys():
                    continue
            silent.append(actor)
        return silent

    def _vacate(self, actors: list[Actor]) -> None:
        """Kill some actors; others will take their placements, with the clients that they have at present."""
        for actor in actors:
            if actor in self.actors:
                self._ray.kill(actor.handle)
                self.actors.remove(actor)
                self._vacant.append(replace(actor.placement, clients=tuple(map(self._clients.named, actor.clients))))

    def _wave(self, placements: list[Placement]) -> list[Actor]:
        assert self._setup is not None, "placements are made with it"
        remote = self._ray.remote(handing_in(host_class(self._setup)))
        setup = self._ray.put(self._setup)  # once: it may hold a network
        handles = [
            remote.options(**self._options(placement)).remote(
                setup, placement.clients, replace(self._limits, gpu_share=placement.gpus or 1.0)
            )
            for placement in placements
        ]
        nodes = self._head.get([call_in(handle, _node_id) for handle in handles])
        made = zip(handles, nodes, placements, strict=True)
        actors = [Actor(handle=handle, placement=placement, node=node) for handle, node, placement in made]
        for actor in actors:
            self._homes.add(actor, actor.placement.clients)
        return actors

    def _admit(self, names: Sequence[str]) -> list[Any]:
        """Give the clients that have no actor one.

        Returns:
            References that are ready when the actors have them.
        """
        there = self._homes.names()
        new = [self._clients.named(name) for name in names if name not in there]
        return [actor.handle.admit.remote(own) for actor, own in self._homes.deal(new, names, self.actors)]

    def clients(self) -> Iterable[str]:
        """Those of all actors."""
        return self._homes.names()

    def _options(self, placement: Placement) -> dict[str, Any]:
        node = list(self._nodes)[placement.node]
        pinned = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        return {
            "num_cpus": 0, "num_gpus": placement.gpus, "memory": math.ceil(placement.memory) or None, "max_restarts": 0,
            "scheduling_strategy": pinned if placement.pinned or not (placement.gpus or placement.memory) else "SPREAD",
            "label_selector": dict(placement.needs.labels or {}) or None,
        }  # fmt: skip

    # Calls

    def learn(self, rows: Iterable[Row]) -> None:
        """Learn from the last phase's rows how long clients take."""
        parts = ("load_seconds", "train_seconds", "send_seconds")
        seconds = {row["client"]: sum(row[part] for part in parts) for row in rows}
        self._homes.expected.learn(seconds, {row["client"]: row["private_bytes"] for row in rows})

    def call(self, message: Message, broadcast: Mapping[str, Vector] = NOTHING) -> Iterator[Reply]:
        """Send a message to its clients' hosts, longest call first; a node starts its next call when one finishes."""
        moved = self._admit(message.clients)
        with explained(self._ray):
            put = (self._ray.put(dict(broadcast)),) if broadcast else ()
        sent = Outgoing(message=message, broadcast=put, sums=isinstance(message, Train))
        if isinstance(message, Train) and self._homes.expected.measured:
            moved += self._rebalance(message.clients)
        waiting: Queues = defaultdict(list)
        for actor, mine in self._homes.by_actor(message.clients):
            waiting[actor.node].append((actor, tuple(mine)))
        for queue in waiting.values():
            queue.sort(key=lambda call: -sum(map(self._homes.expected.seconds, call[1])))
        self._calls = self._made()
        try:
            yield from self._calls.answers(sent, waiting)
        except RunError:
            self._head.get(moved)  # if a client could not be moved, that is the cause
            raise
        self._head.get(moved)

    @property
    def running(self) -> Mapping[Any, Call]:
        """The calls in progress, by the streams of their answers."""
        return self._calls.running if self._calls else {}

    def _made(self) -> Calls:
        cpus = {node.id: node.cpus for node in self._nodes.values()}
        fuse, patience = self._setup.fuse if self._setup else 1, self._engine.client_timeout_s
        return Calls(self._ray, self._head, self._tree, cpus=cpus, fuse=fuse, patience=patience)

    def _rebalance(self, wanted: Sequence[str]) -> list[Any]:
        """Move clients between actors of a node that train at the same time, where that saves more than it costs.

        The private state goes through a file on the node, never through Ray.

        Returns:
            References that are ready when the moves are done.
        """
        moved: list[Any] = []
        queued = {id(actor): mine for actor, mine in self._homes.by_actor(wanted)}
        for node in self._nodes.values():
            actors = [actor for actor in self.actors if actor.node == node.id]
            if len({a.placement.cpus for a in actors}) != 1 or len(actors) * actors[0].placement.cpus > node.cpus:
                continue  # they take turns anyway, or may not take each other's clients
            queues = [queued.get(id(actor), []) for actor in actors]
            for move in balance(queues, self._homes.expected.seconds, self._homes.expected.move_seconds):
                source, target = actors[move.source], actors[move.target]
                moved.append(target.handle.take_over.remote(source.handle.hand_over.remote([move.client])))
                self._homes.move(move.client, target)
        return moved

    def close(self) -> None:
        """Kill the actors and close the connection to Ray; a Ray that was started here is stopped."""
        self._end_actors()
        if self._owned:
            disconnect()  # which ends what was asked for, too
        else:
            self._gathering.end()

    def _end_actors(self) -> None:
        self._tree.end()
        for actor in self.actors:
            self._ray.kill(actor.handle)
        self.actors, self._vacant, self._homes = [], [], Homes()

    def slots(self) -> int:
        """How many clients without special resources can train at once, over all nodes."""
        nodes = usable(self._nodes.values() or self._alive(), self._kinds())
        return sum(max(1, math.floor(node.cpus / self._engine.threads)) for node in nodes)

    def _kinds(self) -> set[Resources]:
        """What clients need."""
        return {client.resources for client in self._clients.typical}

    def _alive(self) -> list[Node]:
        """The living nodes that the run may use; those that it uses already come first."""
        nodes = sorted(nodes_of(self._ray), key=lambda node: node.id not in self._nodes)
        return granted(self._engine, nodes, self._kinds())


def _node_id(host: Host) -> str:
    import ray  # noqa: PLC0415 - runs in the actor

    return str(ray.get_runtime_context().get_node_id())
