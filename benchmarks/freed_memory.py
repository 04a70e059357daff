"""The gain for a step when a process keeps the memory that it frees (fedsim.engine.host.process.keep_freed_memory).

    python benchmarks/freed_memory.py [--n 32] [--pairs 3] [--processes 2]

Hosts train clients of workload W without Ray, in as many parallel processes as there would be actors, alternately with
glibc's defaults (the floor) and with freed memory kept. One JSON line per pair, then the ratio.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from pathlib import Path

from workload import Case, scratch_folder

from fedsim.engine.federation import assemble
from fedsim.engine.host import training
from fedsim.engine.host.host import Host
from fedsim.engine.host.messages import Train
from fedsim.engine.record.run_directory import setup_of
from fedsim.workload.reading import load_workload

_ROUNDS = 5  # measured, after a warm-up


def trained(task: tuple[str, bool]) -> tuple[float, float]:
    """Milliseconds and page faults per client, of a host in this process."""
    file, keep = task
    if not keep:
        training.keep_freed_memory = lambda: None
    workload = load_workload(file).settled()
    federation = assemble(workload)
    host = Host(setup_of(workload), federation.clients)
    weights = dict.fromkeys(federation.names, 1 / len(federation.names))
    server = training.make_learner(setup_of(workload)).fresh_server()
    seconds = []
    for round_ in range(_ROUNDS + 1):
        faults, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        order = Train(clients=federation.names, round=round_ + 1, phase="train", since=time.time(), weights=weights)
        for _ in host.handle(order, server):
            pass
        seconds.append((time.perf_counter() - begun) / len(weights))
        faulted = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / len(weights)
    return 1e3 * statistics.median(seconds[1:]), faulted


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=32, help="clients of each process")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="in parallel")
    given = parser.parse_args()
    ratios = []
    with scratch_folder() as scratch:
        file = str(Path(Case(given.n).write(scratch)))
        for _ in range(given.pairs):
            floor, kept = (_at_once(file, keep, given.processes) for keep in (False, True))
            ratios.append(kept[0] / floor[0])
            row = {"floor_ms_per_client": floor[0], "ms_per_client": kept[0], "ratio": ratios[-1]}
            print(json.dumps({**row, "floor_page_faults": floor[1], "page_faults": kept[1]}), flush=True)
    print(f"kept / as it comes: {statistics.median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f})")


def _at_once(file: str, keep: bool, processes: int) -> tuple[float, float]:
    """Means over fresh processes that work at the same time."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        results = pool.map(trained, [(file, keep)] * processes, chunksize=1)
    milliseconds, faults = zip(*results, strict=True)
    return statistics.mean(milliseconds), statistics.mean(faults)


if __name__ == "__main__":
    main()
