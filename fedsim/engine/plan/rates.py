"""Measuring this machine's driver, adders and ledger, with hosts that train nothing: a few seconds."""

import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedsim.engine.host.merging import Level, Merger, together
from fedsim.engine.host.messages import Row
from fedsim.engine.host.process import here
from fedsim.engine.place.placement import Placement
from fedsim.engine.plan.scaling import Rates
from fedsim.engine.plan.standin import StandIn, Work
from fedsim.engine.ray.adder import handing_in
from fedsim.engine.ray.calls import Actor, Calls, Outgoing, Queues
from fedsim.engine.ray.cluster import connect, disconnect
from fedsim.engine.ray.head import Head
from fedsim.engine.ray.tree import Tree
from fedsim.engine.record.ledger import UNKNOWN, Ledger, round_row

_CALLS, _HOSTS = 256, 2  # in progress at a time, and the processes that answer them
_MORE = 4  # pieces of an answer
_SMALL = 1000  # elements of their sums
_SUMS = 8  # of full size
_ROWS = 4000
_REPEATS = 3


class Everywhere(Tree):
    """An adder on every node."""

    @staticmethod
    def worthwhile(hosts: int, nodes: int) -> bool:
        """Whether a node has one: always."""
        return True


class Nowhere(Tree):
    """No adders."""

    @staticmethod
    def worthwhile(hosts: int, nodes: int) -> bool:
        """Whether a node has one: never."""
        return False


class StandIns:
    """Some hosts on a node that train nothing."""

    def __init__(self, ray: Any, node: str, sizes: list[int], first: int = 0) -> None:  # noqa: ANN401 - the module ray
        """Start them.

        Args:
            ray: The module.
            node: Ray's id of the node.
            sizes: Elements of each one's sum.
            first: Number of the first.
        """
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        remote = ray.remote(handing_in(StandIn)).options(num_cpus=0, scheduling_strategy=there)
        handles = [remote.remote(first + at, size) for at, size in enumerate(sizes)]
        ray.get([handle.partial_sums.remote() for handle in handles])
        placement = Placement(node=0, pinned=True, clients=(), cpus=1.0)
        self.actors = [Actor(handle=handle, placement=placement, node=node, clients={"": None}) for handle in handles]


def measure(elements: int) -> Rates:
    """What this machine does; starts Ray unless this process is connected to one.

    Args:
        elements: Of a host's partial sums; of fewer than a thousand, a thousand are measured.
    """
    elements = max(elements, _SMALL)
    with _ray() as (ray, head):
        node, adders = ray.get_runtime_context().get_node_id(), Everywhere(ray, head)
        hosts = StandIns(ray, node, [_SMALL] * _HOSTS).actors
        calls = Calls(ray, head, adders, cpus={node: math.inf})
        timed = [[_calling(calls, hosts, pieces) for pieces in (1, 1 + _MORE)] for _ in range(_REPEATS)]
        adders.end()
        hosts = StandIns(ray, node, [elements]).actors
        fetching = [_fetching(ray, head, hosts[0]) for _ in range(_REPEATS)]
        adders = Everywhere(ray, head)
        adding = [_adding(Calls(ray, head, adders, cpus={node: math.inf}), hosts) for _ in range(_REPEATS)]
        adders.end()
        row = min(_row_seconds(ray) for _ in range(_REPEATS))
        for actor in hosts:
            ray.kill(actor.handle)
    (launch, heard), (_, longer) = (tuple(map(min, zip(*each, strict=True))) for each in zip(*timed, strict=True))
    piece = max(0.0, longer - heard) / _MORE
    return Rates(
        launch=launch,
        piece=piece,
        end=heard - piece,
        driver=max(fetching),
        adder=max(adding),
        row=row,
    )


@contextmanager
def _ray() -> Iterator[tuple[Any, Head]]:
    ray, owned = connect(None)
    try:
        yield ray, Head(ray)
    finally:
        if owned:
            disconnect()


def _calling(calls: Calls, hosts: list[Actor], pieces: int) -> tuple[float, float]:
    """The driver's own time for each call: until all are made, and from then until all are heard [s]."""
    waiting: Queues = {hosts[0].node: [(hosts[at % len(hosts)], ("",)) for at in range(_CALLS)]}
    answers = calls.answers(Outgoing(message=Work(pieces=pieces), sums=True), waiting)
    begun = time.thread_time()
    next(answers)
    made = time.thread_time()
    for _ in answers:
        pass
    return (made - begun) / _CALLS, (time.thread_time() - made) / _CALLS


def _fetching(ray: Any, head: Head, host: Actor) -> float:  # noqa: ANN401 - the module ray
    """Sums that the driver fetches from this node and adds [bytes per second]."""
    sums = [host.handle.partial_sums.remote() for _ in range(_SUMS)]
    ray.wait(sums, num_returns=_SUMS)
    merger, size, begun = Merger(), 0, time.perf_counter()
    for each in sums:
        size += merger.add(head.get(each)).bytes
    return size / (time.perf_counter() - begun)


def _adding(calls: Calls, hosts: list[Actor]) -> float:
    """Sums that an adder adds [bytes per second]."""
    waiting: Queues = {hosts[0].node: [(hosts[0], ("",))] * _SUMS}
    levels: dict[str, Level] = {}
    for piece in calls.answers(Outgoing(message=Work(), sums=True), waiting):
        if piece.sums:
            levels = together(levels, piece.levels)
    return levels["node"].bytes / levels["node"].seconds


def _row_seconds(ray: Any) -> float:  # noqa: ANN401 - the module ray
    """Time that the ledger takes for a client's row [s]."""
    row: Row = {
        "round": 1, "samples": 8, "outcome": "trained", **here(), "device": "cpu", "weight": 1e-3, "loss": 0.5,
        "steps": 2, "begin_seconds": 0.1, "private_bytes": 1, "uplink_bytes": 1, "downlink_bytes": 1,
        **dict.fromkeys(("wait_seconds", "load_seconds", "train_seconds", "send_seconds"), 0.1),
    }  # fmt: skip
    rows = [{**row, "client": f"P-{at:05d}", "site": f"P-{at:05d}"} for at in range(_ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        took = [_timed(ray, ledger, ray.put(rows)) for _ in range(2)]
    return took[1] / _ROWS  # the first one is written, and then none for a while


def _timed(ray: Any, ledger: Ledger, rows: Any) -> float:  # noqa: ANN401 - the module ray, and a reference
    """This thread's own time for a round's rows, as they come from hosts [s]."""
    begun = time.thread_time()
    clients = [{**row, **UNKNOWN} for row in ray.get(rows)]
    ledger.append(round_row(1, 1.0, clients, 1, 1), clients)
    return time.thread_time() - begun
