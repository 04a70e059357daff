"""What simulated time costs the engine for each event, and how well clients of overlapping rounds use two cores.

    python benchmarks/virtual.py [--n 10000] [--concurrency 200] [--buffer 50] [--steps 60] [--channels 8]
                                 [--clients 64] [--cores 2] [--turns 384] [--out FOLDER] [--quick]

JSON lines, then a table. Two parts:

    events    In one process, clients of workload W that train nothing (`noop.py`): buffered, and without `time` as many
              clients a round as a buffer has. `event_ms` is the difference for each client's turn, beginning and end
              together; `timetable_ms` what computing the timetable alone takes of it.
    speedup   Clients of workload W that train, in modes buffered (a quarter of the clients at work make a buffer) and
              asynchronous, in one process and on Ray with some cores; `speedup` is the ratio of the seconds of all
              rounds, without start-up and checkpoints. A round is validated never and kept at the end.

`--quick` is a small form that takes a minute, to check that everything runs.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workload import Case, free_run, scratch_folder

from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.federation import assemble
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.engine.simulation import Simulation
from fedsim.workload.reading import load_workload

Row = dict[str, Any]
SPEEDS = "compute: {samples_per_s: [20, 400]}, uplink_mbps: [5, 100], downlink_mbps: [20, 500], jitter: 0.1"


def run(case: Case, scratch: Path) -> Run:
    """A finished run of a case."""
    out = free_run(scratch)
    with Simulation(load_workload(case.write(scratch), case.overrides), out) as simulation:
        simulation.run()
    return Run(out)


def turn_ms(run: Run, first: int) -> float:
    """Milliseconds of a client's turn with all else that a round costs, the median over rounds from some on."""
    rounds = run.rounds[run.rounds["round"] > first]
    return float(1e3 * (rounds["seconds"] / rounds["clients"]).median())


def timetable_ms(case: Case, scratch: Path) -> float:
    """Milliseconds of a turn in the timetable alone."""
    workload = load_workload(case.write(scratch), case.overrides).settled()
    timetable = Timetable.of(workload, assemble(workload).clients, make_learner(setup_of(workload)))
    assert timetable is not None
    begun = time.perf_counter()
    turns = sum(len(timetable.step(round_).turns) for round_ in range(1, case.rounds + 1))
    return 1e3 * (time.perf_counter() - begun) / turns


def events(given: argparse.Namespace, scratch: Path) -> Row:
    """The cost of an event over training."""
    every = ("engine.backend=serial", f"training.cohort={given.buffer}")
    mode = f"time={{mode: buffered, buffer: {given.buffer}, concurrency: {given.concurrency}, {SPEEDS}}}"
    plain = Case(given.n, given.channels, mode="noop", rounds=given.steps, overrides=every)
    timed = Case(given.n, given.channels, mode="noop", rounds=given.steps, overrides=(*every, mode))
    first = given.steps // 3
    with_time, without = (turn_ms(run(case, scratch), first) for case in (timed, plain))
    return {
        "part": "events", "n": given.n, "concurrency": given.concurrency, "buffer": given.buffer,
        "turn_ms": with_time, "untimed_turn_ms": without, "event_ms": with_time - without,
        "timetable_ms": timetable_ms(timed, scratch),
    }  # fmt: skip


def speedups(given: argparse.Namespace, scratch: Path) -> Iterator[Row]:
    """Seconds of the rounds of a run in one process, and on some cores."""
    at_work = 3 * given.clients // 4
    buffer = at_work // 4
    modes = {"buffered": (f"buffer: {buffer}, ", given.turns // buffer), "asynchronous": ("", given.turns)}
    for mode, (more, rounds) in modes.items():
        keys = f"time={{mode: {mode}, {more}concurrency: {at_work}, {SPEEDS}}}"
        seconds = {}
        for backend in ("serial", "ray"):
            where = (f"engine.backend={backend}", *((f"engine.cores={given.cores}",) if backend == "ray" else ()))
            case = Case(given.clients, given.channels, rounds=rounds, overrides=(keys, *where))
            seconds[backend] = float(run(case, scratch).rounds["seconds"].sum())
        yield {
            "part": "speedup", "mode": mode, "clients": given.clients, "concurrency": at_work, "rounds": rounds,
            "cores": given.cores, **{f"{backend}_seconds": taken for backend, taken in seconds.items()},
            "speedup": seconds["serial"] / seconds["ray"],
        }  # fmt: skip


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="clients that train nothing")
    parser.add_argument("--concurrency", type=int, default=200, help="of them at work at once")
    parser.add_argument("--buffer", type=int, default=50, help="uploads of a server step")
    parser.add_argument("--steps", type=int, default=60, help="server steps; the first third is not measured")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--clients", type=int, default=64, help="clients that train")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--turns", type=int, default=384, help="turns of clients that train, about")
    parser.add_argument("--out", type=Path, help="folder for the scratch folder; default the temporary files'")
    parser.add_argument("--quick", action="store_true", help="few steps of small networks")
    given = parser.parse_args()
    if given.quick:
        given.steps, given.channels, given.clients, given.turns = 9, 2, 12, 36
    with scratch_folder(given.out) as scratch:
        rows = [events(given, scratch)]
        print(json.dumps(rows[0]), flush=True)
        for row in speedups(given, scratch):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(table(rows))


def table(rows: list[Row]) -> str:
    """The results as a table."""
    first = rows[0]
    lines = [
        f"{first['n']:,} clients, concurrency {first['concurrency']}, buffer {first['buffer']}: "
        f"{first['event_ms']:.3f} ms an event over {first['untimed_turn_ms']:.3f} ms a turn; "
        f"the timetable alone {first['timetable_ms']:.3f} ms"
    ]
    lines += [
        f"{row['mode']:>13}: {row['serial_seconds']:7.1f} s in one process, {row['ray_seconds']:7.1f} s on "
        f"{row['cores']} cores, {row['speedup']:.2f} times as fast"
        for row in rows[1:]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
