"""Rounds of workload W on one, two and three Ray nodes of one core each, with as many more clients.

    python benchmarks/weak_scaling.py [--raylets 1 2 3] [--n 16] [--channels 8] [--rounds 3] [--set KEY=VALUE ...]

The nodes are raylets on this machine, with the store and the scheduling of real ones but one network and one memory.
`efficiency` is a round's time on one node to its time on several: 1 where nothing is lost. More nodes than cores cannot
be efficient, so the bare loop of `floor.py`, in as many processes, takes its turns with fedsim; `ratio` is to its time.
One JSON line for each number of nodes, then a table.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from overhead import measure
from workload import Case, scratch_folder

Row = dict[str, Any]
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for _ in range(int(sys.argv[1]) - 1):
    cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def cluster(raylets: int) -> Iterator[str]:
    """The address of a cluster, while it is there."""
    command = [sys.executable, "-c", CLUSTER, str(raylets)]
    pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True) as head:
        assert head.stdout is not None
        yield next(line.strip() for line in head.stdout if line.startswith("127."))
        head.communicate()


def results(cases: dict[int, Case], rounds: int) -> Iterator[Row]:
    """A result for each number of nodes; the first is what the others are compared with."""
    base: Row | None = None
    with scratch_folder() as scratch:
        for count, case in cases.items():
            with cluster(count) as address:
                row = measure(case, rounds, count, scratch, address)
            base = base or row
            yield {
                "raylets": count,
                "cores": os.cpu_count(),
                **row,
                "efficiency": base["seconds"] / row["seconds"],
                "floor_efficiency": base["floor_seconds"] / row["floor_seconds"],
            }


def table(rows: list[Row]) -> str:
    """The results, to read."""
    lines = [
        f"{'nodes':>5} {'clients':>7} {'fedsim [s]':>10} {'floor [s]':>9} {'ratio':>6} {'range':>13} "
        f"{'efficiency':>10} {'of the floor':>12}"
    ]
    for row in rows:
        head = f"{row['raylets']:>5} {row['n']:>7} {row['seconds']:>10.3f} {row['floor_seconds']:>9.3f}"
        span = f"{row['ratio_low']:.3f} - {row['ratio_high']:.3f}"
        tail = f"{row['efficiency']:>10.2f} {row['floor_efficiency']:>12.2f}"
        lines.append(f"{head} {row['ratio']:>6.3f} {span:>13} {tail}")
    lines.append(f"This machine has {os.cpu_count()} cores; more nodes than that share them.")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raylets", nargs="+", type=int, default=[1, 2, 3], help="numbers of nodes, the base first")
    parser.add_argument("--n", type=int, default=16, help="clients a node")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="measured, after one that is not")
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback only
    settings = tuple(given.overrides)
    cases = {count: Case(count * given.n, given.channels, overrides=settings) for count in given.raylets}
    rows = []
    for row in results(cases, given.rounds):
        print(json.dumps(row), flush=True)
        rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
