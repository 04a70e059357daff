"""The model of `fedsim plan --nodes` beside what this machine does: a round predicted and measured.

    python benchmarks/scaling_model.py [--n 32] [--rounds 4] [--raylets 2 4 8 16] [--hosts 4] [--work 1.0] [--gbit 16]

    cores     workload W in fedsim on 1 and 2 cores of one node
    raylets   stand-in hosts that sleep for `--work` seconds on raylets of this machine; their sums of 2.4 MB go by
              adders. So training is not slowed by the cores that all share, and the rest of a phase is what is compared

Predictions use rates that were measured just before, on the same machine. Between raylets sums go through loopback:
`--gbit` is its speed. Medians of `--rounds` rounds after a first one. One JSON line for each, then a table.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from overhead import use_cores
from raylets import raylets
from tree import Bench
from workload import Case, free_run, scratch_folder

from fedsim.engine.plan.fits import plan_run
from fedsim.engine.plan.rates import measure
from fedsim.engine.plan.scaling import Cluster, Round, predict, round_of
from fedsim.engine.ray.cluster import connect
from fedsim.engine.simulation import Simulation
from fedsim.workload.reading import load_workload

Row = dict[str, Any]
W_MB = 1.177632


def on_cores(n: int, rounds: int, scratch: Path) -> Iterator[Row]:
    """Workload W on 1 and 2 cores."""
    for cores in (1, 2):
        case = Case(n, rounds=rounds + 1, overrides=(f"engine.cores={cores}",))
        workload = load_workload(case.write(scratch), [*case.overrides])
        out = free_run(scratch)
        plan = plan_run(workload, out)
        rates = measure(round(W_MB * 1e6 / 4))
        predicted = predict(round_of(plan), Cluster(nodes=1, cores=cores, gbit=math.inf), rates)
        seconds: list[float] = []
        with Simulation(workload, out) as simulation:
            simulation.run(between=lambda row, seconds=seconds: seconds.append(row["seconds"]))
        measured = statistics.median(seconds[1:])
        ideal = predicted.efficiency * predicted.seconds
        yield _row("cores", f"{cores}", predicted.seconds, measured, ideal)


def on_raylets(counts: list[int], hosts: int, work: float, gbit: float, rounds: int) -> Iterator[Row]:
    """Stand-ins on some of the raylets of one cluster."""
    with raylets(max(counts)) as address:
        ray, _ = connect(address)
        bench = Bench(ray, hosts, W_MB, work)
        rates = replace(measure(round(W_MB * 1e6 / 4)), row=0.0)
        for nodes in counts:
            turns = [bench.phase(bench.ways[1], nodes=nodes)["seconds"] for _ in range(rounds + 1)]
            what = Round(clients=hosts * nodes, client=work, broadcast=0.0, sums=2e6 * W_MB)
            predicted = predict(what, Cluster(nodes=nodes, cores=hosts, gbit=gbit), rates)
            yield _row("raylets", f"{nodes} x {hosts}", predicted.seconds, statistics.median(turns[1:]), work)
        ray.shutdown()


def _row(what: str, size: str, predicted: float, measured: float, ideal: float) -> Row:
    efficiencies = {"predicted_efficiency": ideal / predicted, "efficiency": ideal / measured}
    return {"what": what, "size": size, "predicted": predicted, "measured": measured, **efficiencies}


def table(rows: list[Row]) -> str:
    """The results as a table."""
    lines = [
        f"{'':<8} {'size':>7} {'predicted [s]':>13} {'measured [s]':>12} {'efficiency: predicted':>21} {'measured':>8}"
    ]
    for row in rows:
        head = f"{row['what']:<8} {row['size']:>7} {row['predicted']:>13.3f} {row['measured']:>12.3f}"
        lines.append(f"{head} {row['predicted_efficiency']:>21.2f} {row['efficiency']:>8.2f}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=32, help="clients of workload W")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--raylets", nargs="+", type=int, default=[2, 4, 8, 16])
    parser.add_argument("--hosts", type=int, default=4, help="stand-ins on each raylet")
    parser.add_argument("--work", type=float, default=1.0)
    parser.add_argument("--gbit", type=float, default=16.0, help="of loopback, between raylets")
    given, rows = parser.parse_args(), []
    use_cores(2)
    with scratch_folder() as scratch:
        for results in (  # raylets first: they set the token that Ray reads once in a process
            on_raylets(given.raylets, given.hosts, given.work, given.gbit, given.rounds),
            on_cores(given.n, given.rounds, scratch),
        ):
            for row in results:
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
