"""Memory of a run as clients are added: rounds without training (`noop.py`), with all the state of real ones.

    python benchmarks/memory.py [--n 32 128 512] [--channels 8 32] [--optimizer rmsprop|sgd] [--rounds 2]
                                [--checkpoint] [--set KEY=VALUE ...]

Every case runs in a separate process that is sampled from outside. Printed are the peak of the driver (PSS: its part of
shared pages, without the object store), the peak of all processes including the object store, and that of the object
store alone (shared memory touched so far). The floor is the driver's memory after importing fedsim. One JSON line for
each case, then a table.
"""

import argparse
import json
import shutil
from functools import reduce
from pathlib import Path
from typing import Any

from processes import Lap, watched
from workload import Case, free_run, scratch_folder

Row = dict[str, Any]


def measure(case: Case, scratch: Path, checkpoint: bool, interval_s: float) -> Row:
    """One result."""
    out = free_run(scratch)
    without = [] if checkpoint else ["--no-checkpoint"]
    laps: dict[str, Lap] = {}
    with watched(interval_s, *case.arguments(scratch, out), *without) as (watch, events):
        for event in events:
            laps[event["event"]] = laps.get(event["event"], Lap()).joined(watch.lap())
    shutil.rmtree(out)
    whole, floor = reduce(Lap.joined, laps.values()), laps["imported"].driver_bytes
    row = {"n": case.clients, "channels": case.channels, "optimizer": case.optimizer, "checkpoint": checkpoint}
    return {**row, **whole.row(), "floor_mb": floor / 1e6, "ratio": whole.driver_bytes / floor}


def table(rows: list[Row]) -> str:
    """The results as a table."""
    lines = [
        f"{'clients':>7} {'channels':>8} {'driver [MB]':>11} {'floor [MB]':>10} {'ratio':>6} {'all [MB]':>9} "
        f"{'store [MB]':>10} {'processes':>9}"
    ]
    lines += [
        f"{row['n']:>7} {row['channels']:>8} {row['driver_mb']:>11.0f} {row['floor_mb']:>10.0f} {row['ratio']:>6.2f} "
        f"{row['total_mb']:>9.0f} {row['store_mb']:>10.0f} {row['processes']:>9.0f}"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", nargs="+", type=int, default=[32, 128, 512], help="numbers of clients")
    parser.add_argument("--channels", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--optimizer", choices=["rmsprop", "sgd"], default="rmsprop")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--checkpoint", action="store_true", help="write one after the last round")
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between samples")
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    rows = []
    with scratch_folder() as scratch:
        for channels in given.channels:
            for n in given.n:
                settings = tuple(given.overrides)
                case = Case(
                    n, channels, mode="noop", optimizer=given.optimizer, rounds=given.rounds, overrides=settings
                )
                rows.append(measure(case, scratch, given.checkpoint, given.interval))
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
