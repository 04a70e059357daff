"""What fedsim makes of a GPU, beside bare loops on the same GPU. Where there is none it says so and exits with 0.

    python benchmarks/gpu.py [--quick] [--seconds 225]

Every way to take a step (eager; graph: captured once and replayed; fused K: K clients that train as one network, under
a graph) at every precision, for workload W (`workload.py`) with 1, 8, 64 and 256 clients and for the dual network with
32 channels on 128 x 128, 8 clients. fedsim runs in this process, and its rounds alternate with those of three bare
loops at the same precision (`loop.py`): eager, as a graph, and fused under a graph, which is what the chip can do. They
keep everything on the GPU and use the same deterministic kernels. Columns, per client per round:

    ms                    fedsim's time, the median of its rounds after the first, with broadcast, sums and ledger
    /eager /graph /fused  fedsim's time divided by each bare loop's, the median over pairs of rounds
    load, send            time to load a client's state and to return it, divided by its training time
    first                 duration of the first round [s]
    GB                    peak GPU memory of tensors

Then pairs of runs whose bits must agree, and a run on Ray, timed from its start. One JSON line per result, then tables.
A part that fails prints its error and the others go on; none begins after `--seconds`. `--quick` leaves out half. The
exit status is 1 if a part failed or bits differ.
"""

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import torch
from gpu_runs import Bench, Way
from workload import Case, scratch_folder

from fedsim.algorithms.training import Precision

Row = dict[str, Any]
Job = Callable[[], Row]
W = Case(64)
DUAL = Case(8, 32, domain="dual", size=128, slices=16, batch=8)
EAGER, GRAPH = Way(graphs=False), Way()
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def jobs(bench: Bench, w: Case, dual: Case, quick: bool) -> Iterator[Job]:
    """What to measure, the most important first."""
    fused = [Way(fuse=fuse) for fuse in ((32,) if quick else (8, 32, 64))]
    yield from _steps(bench, w, [EAGER, GRAPH, *fused])
    yield from _steps(bench, dual, [EAGER, GRAPH, Way(fuse=8)])
    yield from _bits(bench, w, "float32")
    yield partial(bench.on_ray, w, Way(fuse=32))
    yield from _steps(bench, w, [Way(deterministic=False), Way(fuse=32, deterministic=False)])
    for precision in PRECISIONS[1:]:
        yield from _steps(bench, dual, [replace(way, precision=precision) for way in (EAGER, GRAPH, Way(fuse=8))])
        yield from _steps(bench, w, [replace(way, precision=precision) for way in (EAGER, GRAPH, *fused)])
        yield from _bits(bench, w, precision)
    for clients in (8,) if quick else (1, 8, 256):
        fitting = [way for way in fused if way.fuse <= max(8, clients)]
        yield from _steps(bench, replace(w, clients=clients), [EAGER, GRAPH, *fitting])
    if not quick:
        yield from _bits(bench, dual, "float32")


def _steps(bench: Bench, case: Case, ways: list[Way]) -> Iterator[Job]:
    return (partial(bench.step, case, way) for way in ways)


def _bits(bench: Bench, case: Case, precision: Precision) -> Iterator[Job]:
    eager, graph, fused = (replace(way, precision=precision) for way in (EAGER, GRAPH, Way(fuse=8)))
    yield partial(bench.bits, case, "graph, eager", graph, eager)
    yield partial(bench.bits, case, "graph, again", graph, graph)
    yield partial(bench.bits, case, "fused 8, again", fused, fused)
    yield partial(bench.bits, case, "fused 8: graph, eager", fused, replace(fused, graphs=False))
    yield partial(bench.bits, case, "fused 8, clients in another order", fused, fused, reverse=True)


def results(todo: Iterator[Job], seconds: float) -> Iterator[Row]:
    """The row of each job, or its error."""
    ends = time.monotonic() + seconds
    for job in todo:
        begun = time.monotonic()
        if begun > ends:
            yield {"part": "skipped", "what": _named(job), "reason": f"--seconds {seconds:g} are over"}
            continue
        try:
            row = job()
        except Exception as error:  # whatever it is, the other results count
            traceback.print_exc()
            row = {"part": "error", "what": _named(job), "error": f"{type(error).__name__}: {error}"[:500]}
        gc.collect()
        torch.cuda.empty_cache()
        yield {**row, "took": time.monotonic() - begun}


def _named(job: Job) -> str:
    assert isinstance(job, partial), "made above"
    words = [f"{each.title}, {each.clients} clients" if isinstance(each, Case) else str(each) for each in job.args]
    return ": ".join([job.func.__name__, *words])


def tables(rows: list[Row]) -> str:
    """The results as tables."""
    heads = [f"{head:>7}" for head in ("ms", "/eager", "/graph", "/fused", "load", "send", "first", "GB")]
    lines = [f"{'network':<8} {'clients':>7}  {'step':<10} {'precision':<9} {'kernels':<13} {' '.join(heads)}"]
    for row in (row for row in rows if row["part"] == "step"):
        keys = ("ms", "to_eager", "to_graph", "to_fused", "load", "send", "first_seconds", "memory_gb")
        figures = " ".join(f"{row[key]:>7.3f}" for key in keys)
        lines.append(
            f"{row['network']:<8} {row['n']:>7}  {row['step']:<10} {row['precision']:<9} {row['kernels']:<13} {figures}"
        )
    for row in (row for row in rows if row["part"] == "bits"):
        verdict = "the same bits" if row["same"] else "OTHER BITS" if row["promised"] else "other bits (not promised)"
        lines.append(f"{row['network']:<8} {row['precision']:<9} {row['pair']:<34} {verdict}")
    lines += [json.dumps(row) for row in rows if row["part"] not in {"step", "bits"}]
    return "\n".join(lines)


def tiny(case: Case) -> Case:
    """The same code with little to compute."""
    return replace(case, clients=min(8, case.clients), channels=2, size=32)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer modes, clients and pairs of rounds")
    parser.add_argument("--seconds", type=float, default=225.0, help="no part begins later")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help=argparse.SUPPRESS)  # cpu: a trial
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = parse()
    if given.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"status": "skipped", "reason": "torch sees no GPU"}))
        return
    name = torch.cuda.get_device_name() if given.device == "cuda" else "a trial on the CPU with tiny networks"
    print(json.dumps({"status": "measured", "device": name, "torch": torch.__version__}), flush=True)
    w, dual = (W, DUAL) if given.device == "cuda" else (tiny(W), tiny(DUAL))
    rows = []
    with scratch_folder() as scratch:
        bench = Bench(scratch, given.device, pairs=1 if given.quick else 3)
        for row in results(jobs(bench, w, dual, given.quick), given.seconds):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(tables(rows))
    sys.exit(any(map(_wrong, rows)))


def _wrong(row: Row) -> bool:
    if row["part"] == "ray":
        return not row["same_bits_as_serial"]
    return row["part"] == "error" or (row["part"] == "bits" and row["promised"] and not row["same"])


if __name__ == "__main__":
    main()
