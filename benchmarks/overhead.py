"""The cost of the engine: rounds of workload W in fedsim, alternating with rounds of the bare loop of `floor.py`.

    python benchmarks/overhead.py [--n 32 128 512] [--fuse 1 ...] [--mode train|noop] [--channels 8] [--rounds 3]
                                  [--processes 2] [--optimizer rmsprop|sgd] [--evaluate] [--checkpoints]
                                  [--set KEY=VALUE ...]

Both use the same `--processes` cores and take turns round by round, after a warm-up round of each; the order of a pair
alternates. A round of fedsim is everything up to the next one: broadcast, training, aggregation and the ledger, with
`--evaluate` also the validation of every client, and with `--checkpoints` a checkpoint. The floor has neither. `ratio`
is the median over pairs of rounds of fedsim's time divided by the floor's. With `--fuse` fedsim trains clients as one
network (training.fuse), for each value given; the floor still trains one client at a time. With `--mode noop` nothing
is trained and there is no floor: `ms_per_client` is the engine's alone. One JSON line for each number of clients and
value of `--fuse`, then a table.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from drive import EnoughError
from floor import Floor
from workload import Case, free_run, scratch_folder

from fedsim.engine.simulation import Simulation
from fedsim.workload.reading import load_workload

Row = dict[str, Any]


class Bare(Protocol):
    """A bare loop, or several."""

    def round(self) -> float:
        """Seconds of one round."""

    def rounds(self, count: int) -> list[float]:
        """Seconds of each of several rounds."""


class Turns:
    """Called by the simulation before every round: times its rounds, and runs the floor's between them."""

    def __init__(self, floor: Bare | None, pairs: int) -> None:
        self.seconds: list[float] = []
        """Seconds of fedsim's rounds; the first one does not count."""
        self.floor_seconds: list[float] = []
        self._floor, self._pairs = floor, pairs
        self._since: float | None = None

    def __call__(self) -> bool:
        """False: do not stop.

        Raises:
            EnoughError: all rounds are done; no checkpoint follows.
        """
        if self._since is not None:
            self.seconds.append(time.perf_counter() - self._since)
        if self._floor is not None:
            self._catch_up(self._floor, len(self.seconds))
        if len(self.seconds) > self._pairs:
            raise EnoughError
        self._since = time.perf_counter()
        return False

    def _catch_up(self, floor: Bare, done: int) -> None:
        """Run the floor's rounds that are due before fedsim's next: first in odd pairs, second in even ones."""
        if not done:
            floor.round()
        due = min(self._pairs, done - (done + 1) % 2)
        self.floor_seconds += floor.rounds(max(0, due - len(self.floor_seconds)))


def alternate(case: Case, pairs: int, floor: Bare | None, scratch: Path, out: Path) -> Turns:
    """Run a case into a run directory, its rounds alternating with the floor's."""
    workload = load_workload(replace(case, rounds=pairs + 2).write(scratch), case.overrides)
    turns = Turns(floor, pairs)
    with Simulation(workload, out) as simulation, suppress(EnoughError):
        simulation.run(turns)
    return turns


def measure(case: Case, pairs: int, processes: int, scratch: Path) -> Row:
    """One result."""
    out = free_run(scratch)
    trains = case.mode == "train"
    with Floor(case.clients, processes, case.channels, case.optimizer) if trains else nullcontext() as floor:
        turns = alternate(case, pairs, floor, scratch, out)
    shutil.rmtree(out)
    return result(case, processes, turns)


def result(case: Case, processes: int, turns: Turns) -> Row:
    """The measurements as a row."""
    counted = turns.seconds[1:]
    ratios = [ours / floor for ours, floor in zip(counted, turns.floor_seconds, strict=False)]
    seconds = statistics.median(counted)
    return {
        "n": case.clients,
        "mode": case.mode,
        "fuse": case.fuse,
        "channels": case.channels,
        "optimizer": case.optimizer,
        "evaluate": case.evaluate,
        "checkpoints": case.checkpoints,
        "processes": processes,
        "rounds": len(counted),
        "seconds": seconds,
        "floor_seconds": statistics.median(turns.floor_seconds) if ratios else None,
        "ratio": statistics.median(ratios) if ratios else None,
        "ratio_low": min(ratios, default=None),
        "ratio_high": max(ratios, default=None),
        "ms_per_client": 1e3 * seconds / case.clients,
    }


def table(rows: list[Row]) -> str:
    """The results as a table."""
    lines = [
        f"{'clients':>7} {'fuse':>4} {'fedsim [s]':>10} {'floor [s]':>10} {'ratio':>6} {'range':>13} {'ms/client':>12}"
    ]
    for row in rows:
        floor, ratio, span = "-", "-", "-"
        if row["ratio"] is not None:
            floor, ratio = f"{row['floor_seconds']:.3f}", f"{row['ratio']:.3f}"
            span = f"{row['ratio_low']:.3f} - {row['ratio_high']:.3f}"
        head = f"{row['n']:>7} {row['fuse']:>4} {row['seconds']:>10.3f} {floor:>10} {ratio:>6}"
        lines.append(f"{head} {span:>13} {row['ms_per_client']:>12.2f}")
    return "\n".join(lines)


def use_cores(count: int) -> None:
    """Pin this process and all that it starts to `count` cores, and torch to one thread.

    Raises:
        SystemExit: there are fewer cores.
    """
    torch.set_num_threads(1)
    if not hasattr(os, "sched_getaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise SystemExit(f"--processes {count}: there are {len(cores)} cores")
    os.sched_setaffinity(0, cores[:count])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", nargs="+", type=int, default=[32, 128, 512], help="numbers of clients")
    parser.add_argument("--fuse", nargs="+", type=int, default=[1], help="clients that fedsim trains as one network")
    parser.add_argument("--mode", choices=["train", "noop"], default="train")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="measured, after one warm-up round")
    parser.add_argument("--optimizer", choices=["rmsprop", "sgd"], default="rmsprop")
    parser.add_argument("--evaluate", action="store_true", help="validate every client after every round")
    parser.add_argument("--checkpoints", action="store_true", help="write a checkpoint after every round")
    parser.add_argument("--processes", type=int, default=2, help="cores to use")
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print."""
    given = parse()
    use_cores(given.processes)
    rows = []
    with scratch_folder() as scratch:
        for n, fuse in itertools.product(given.n, given.fuse):
            case = Case(
                n, given.channels, mode=given.mode, optimizer=given.optimizer, evaluate=given.evaluate,
                checkpoints=given.checkpoints, fuse=fuse, overrides=tuple(given.overrides),
            )  # fmt: skip
            rows.append(measure(case, given.rounds, given.processes, scratch))
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
