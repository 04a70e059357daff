"""The tree of sums: stand-in hosts on raylets of this machine hand in their sums, straight to the driver and by adders.

    python benchmarks/tree.py [--nodes 16] [--hosts 4] [--mb 1.2] [--work 2.0] [--spread 0.0 1.0] [--repeats 7]

    flat      the driver fetches and adds every host's sum
    nodes     an adder on every node, and the driver adds one vector a node
    groups    as with very many nodes: one adder of every few nodes adds those of the others, too

Hosts import no torch and sleep for `--work` seconds instead of training; their ends lie evenly over the last `--spread`
seconds of that (0: all at once). Sums are float64, twice as large as the vectors of `--mb` MB of float32. All ways take
turns. `tail` is the time from the driver's hearing of the last host to the finished sum; `driver MB` what came into
the driver as sums; `adder GB/s` the float64 input of all adders over the time that they took, on cores that all share;
`call ms` the time of the driver's own thread for each host, adding included. Medians and ranges over repeats. Adders'
memory is PSS as `processes.py` counts it, without the object store, beside that of an actor that does nothing. One JSON
line for each way, then a table.
"""

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
from processes import memory
from raylets import raylets

from fedsim.engine.host.merging import Level, Merger, together
from fedsim.engine.plan.rates import Nowhere, StandIns
from fedsim.engine.plan.standin import Work
from fedsim.engine.ray import tree as trees
from fedsim.engine.ray.calls import Calls, Outgoing, Queues
from fedsim.engine.ray.cluster import connect
from fedsim.engine.ray.head import Head
from fedsim.engine.ray.tree import Tree

Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """How sums reach the driver."""

    name: str
    tree: Tree
    most: int = 64
    """Nodes beyond which there are groups."""


class Bench:
    """Stand-in hosts on every node of a cluster."""

    def __init__(self, ray: Any, hosts: int, mb: float, work: float) -> None:  # noqa: ANN401 - the module ray
        self._ray, self._head, self._hosts, self._work = ray, Head(ray), hosts, work
        here = ray.get_runtime_context().get_node_id()
        nodes = sorted((n["NodeID"] for n in ray.nodes() if n["Alive"]), key=lambda node: node != here)
        sizes = [round(mb * 1e6 / 4)] * hosts
        self._queues: Queues = {
            node: [(actor, ("",)) for actor in StandIns(ray, node, sizes, hosts * at).actors]
            for at, node in enumerate(nodes)
        }
        adders = Tree(ray, self._head)
        self.ways = [Way("flat", Nowhere(ray, self._head)), Way("nodes", adders), Way("groups", adders, most=1)]

    def phase(self, way: Way, spread: float = 0.0, nodes: int | None = None) -> Row:
        """A phase of a round in which all hosts of some nodes hand in their sums."""
        trees.MOST_NODES = way.most
        waiting = {node: list(queue) for node, queue in list(self._queues.items())[:nodes]}
        hosts = self._hosts * len(waiting)
        work = Work(seconds=tuple(self._work - spread * at / max(hosts - 1, 1) for at in range(hosts)))
        calls = Calls(self._ray, self._head, way.tree, cpus=dict.fromkeys(waiting, float(self._hosts)))
        merger, levels, begun, own = Merger(), dict[str, Level](), time.perf_counter(), time.thread_time()
        heard = begun
        for piece in calls.answers(Outgoing(message=work, sums=True), waiting):
            if piece.sums:
                levels = together(levels, piece.levels, {"driver": merger.add(piece.sums)})
            else:
                heard = time.perf_counter()
        ended, own = time.perf_counter(), time.thread_time() - own
        digest = hashlib.sha256(b"".join(partial.total.tobytes() for partial in merger.sums().values())).hexdigest()
        node = levels.get("node", Level())
        return {
            "seconds": ended - begun, "tail": ended - heard, "call_ms": 1e3 * own / hosts, "digest": digest,
            "driver_mb": levels["driver"].bytes / 1e6,
            "adder_gb_per_s": node.bytes / node.seconds / 1e9 if node.seconds else None,
        }  # fmt: skip


class Bare:
    """An actor that does nothing."""

    def pid(self) -> int:
        """Number of its process."""
        return os.getpid()


def adders(ray: Any) -> Row:  # noqa: ANN401 - the module ray
    """How many there are, the memory of the largest, and that of a bare actor [MB]."""
    bare = ray.remote(Bare).options(num_cpus=0).remote()
    found = [each.pid for each in psutil.process_iter() if (each.cmdline() or [""])[0].startswith("ray::Adder")]
    sizes = [memory(pid)[0] / 1e6 for pid in (*found, ray.get(bare.pid.remote()))]
    return {"adders": len(found), "adder_mb": max(sizes[:-1]), "bare_mb": sizes[-1]}


def measure(bench: Bench, spread: float, repeats: int) -> Iterator[Row]:
    """A result for each way, after a warm-up phase of each."""
    turns = [[bench.phase(way, spread) for way in bench.ways] for _ in range(repeats + 1)][1:]
    same = len({phase["digest"] for turn in turns for phase in turn}) == 1
    for at, way in enumerate(bench.ways):
        phases = [turn[at] for turn in turns]
        row: Row = {"way": way.name, "spread": spread, "same_bits": same, "driver_mb": phases[0]["driver_mb"]}
        for key in ("tail", "call_ms", "adder_gb_per_s"):
            values = [phase[key] for phase in phases if phase[key] is not None]
            if values:
                row |= {key: statistics.median(values), f"{key}_low": min(values), f"{key}_high": max(values)}
        yield row


def table(rows: list[Row]) -> str:
    """The results as a table."""
    head = f"{'way':<7} {'spread':>6} {'driver MB':>9} {'tail [s]':>8} {'range':>15} {'call ms':>7}"
    lines = [f"{head} {'adder GB/s':>10} {'same bits':>9}"]
    for row in rows:
        span = f"{row['tail_low']:.3f} - {row['tail_high']:.3f}"
        speed = f"{row['adder_gb_per_s']:.1f}" if "adder_gb_per_s" in row else "-"
        head = f"{row['way']:<7} {row['spread']:>6.1f} {row['driver_mb']:>9.1f} {row['tail']:>8.3f} {span:>15}"
        lines.append(f"{head} {row['call_ms']:>7.2f} {speed:>10} {'yes' if row['same_bits'] else 'NO':>9}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=16, help="raylets")
    parser.add_argument("--hosts", type=int, default=4, help="on each of them")
    parser.add_argument("--mb", type=float, default=1.177632, help="size of a float32 vector of parameters")
    parser.add_argument("--work", type=float, default=2.0, help="seconds that a host takes")
    parser.add_argument("--spread", nargs="+", type=float, default=[0.0, 1.0], help="seconds over which hosts end")
    parser.add_argument("--repeats", type=int, default=7)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given, rows = parse(), []
    with raylets(given.nodes) as address:
        ray, _ = connect(address)
        bench = Bench(ray, given.hosts, given.mb, given.work)
        for spread in given.spread:
            for row in measure(bench, spread, given.repeats):
                rows.append({"nodes": given.nodes, "hosts": given.hosts, "mb": given.mb, **row})
                print(json.dumps(rows[-1]), flush=True)
        found = adders(ray)
        print(json.dumps(found), flush=True)
        ray.shutdown()
    print(table(rows))
    print(f"{found['adders']} adders of at most {found['adder_mb']:.1f} MB; a bare actor {found['bare_mb']:.1f} MB")


if __name__ == "__main__":
    main()
