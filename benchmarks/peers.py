"""Workload W in fedsim, Flower and pfl-research, one after another on one machine, each beside the bare loop.

    python benchmarks/peers.py --peers FOLDER --flower-python PATH --pfl-python PATH [--n 32 128 512] [--rounds 3]
                               [--processes 2] [--set KEY=VALUE ...]

FOLDER holds the peers' programs (flower/bench.py and pfl/pfl_run.py); a copy of it is run by the Python of an
environment in which the peer is installed. A peer without a given Python is left out. For each number of clients every
engine runs once, with the bare loop (`floor.py`) before and after it: `ratio` is relative to the mean of the two.
Rounds are medians without the first. Memory is sampled about every second: fedsim's driver is PSS without the object
store, Flower's is resident memory, `all` is the PSS of all processes. `overhead.py` measures fedsim's ratio more
precisely, round by round. One JSON line for each engine and number of clients, then a table.
"""

import argparse
import json
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from processes import floor_seconds, watched
from workload import Case, free_run, scratch_folder

Row = dict[str, Any]
Engine = Callable[[int], Row]
"""Runs a number of clients; returns seconds per round, and memory of the driver and of all processes [MB]."""
MISSING = {
    "fedsim": "",
    "flower": "clients' state is in the driver's memory; equal runs end differently; no resuming",
    "pfl": "clients' state is in one process's memory and in no checkpoint; same bits: not stated",
}
"""What an engine does not do, from the README of the peers' programs: not measured here."""
LIMIT_S = 3600
INTERVAL_S = 1.0  # between samples of memory, each some 40 ms of CPU time; the peers' programs do about the same


def fedsim(clients: int, rounds: int, scratch: Path, overrides: tuple[str, ...]) -> Row:
    """Rounds of fedsim, watched from outside."""
    out, case = free_run(scratch), Case(clients, rounds=rounds + 1, overrides=overrides)
    with watched(INTERVAL_S, *case.arguments(scratch, out), "--no-checkpoint") as (watch, events):
        seconds = [event["seconds"] for event in events if event["event"] == "round_ends"]
        peak = watch.lap().row()
    shutil.rmtree(out)
    return {"seconds": statistics.median(seconds[1:]), "driver_mb": peak["driver_mb"], "total_mb": peak["total_mb"]}


def last_line(command: list[str], folder: Path) -> Row:
    """What a peer's program prints, as JSON, on its last line.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}") from error
    if done.returncode or row.get("error"):
        raise RuntimeError(f"{' '.join(command)}: {row}")
    return row


def flower(clients: int, rounds: int, python: str, folder: Path, processes: int) -> Row:
    """Rounds of Flower, the decoder in its Context."""
    counts = {"n": clients, "rounds": rounds + 1, "cpus": processes, "limit": LIMIT_S}
    command = [python, "bench.py", *(word for key, value in counts.items() for word in (f"--{key}", str(value)))]
    row = last_line(command, folder)
    return {"seconds": row["round_med_s"], "driver_mb": row["peak_driver_rss_mb"], "total_mb": row["peak_pss_mb"]}


def pfl(clients: int, rounds: int, python: str, folder: Path, processes: int) -> Row:
    """Rounds of pfl-research, the decoder in its user state."""
    launch = [python, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    work = ["pfl_run.py", "--clients", str(clients), "--rounds", str(rounds + 1), "--personal", "1"]
    row = last_line([python, "meter.py", *launch, *work], folder)
    return {"seconds": row["median_s"], "driver_mb": None, "total_mb": row["peak_pss_mb"]}


def engines(given: argparse.Namespace, scratch: Path) -> dict[str, Engine]:
    """The engines that can be run."""
    ours = partial(fedsim, rounds=given.rounds, scratch=scratch, overrides=tuple(given.overrides))
    found: dict[str, Engine] = {"fedsim": ours}
    if given.peers is None:
        return found
    copy = Path(shutil.copytree(given.peers, scratch / "peers"))
    peers = {"flower": (flower, given.flower_python), "pfl": (pfl, given.pfl_python)}
    for name, (run, python) in peers.items():
        if python is not None:
            where = {"python": python, "folder": copy / name}
            found[name] = partial(run, rounds=given.rounds, processes=given.processes, **where)
    return found


def results(given: argparse.Namespace, scratch: Path) -> Iterator[Row]:
    """A result for each number of clients and engine."""
    runs = engines(given, scratch)
    for n in given.n:
        before = floor_seconds(n, 8, given.processes, given.rounds)
        for name, run in runs.items():
            row = run(n)
            after = floor_seconds(n, 8, given.processes, given.rounds)
            floor, seconds = (before + after) / 2, row["seconds"]
            figures = {"floor_seconds": floor, "ratio": seconds / floor, "ms_per_client": 1e3 * seconds / n}
            yield {"n": n, "engine": name, **row, **figures, "missing_by_readme": MISSING[name]}
            before = after


def table(rows: list[Row]) -> str:
    """The results as a table."""
    lines = [
        f"{'clients':>7} {'engine':<7} {'s/round':>8} {'floor':>8} {'ratio':>6} {'ms/client':>11} "
        f"{'driver [MB]':>11} {'all [MB]':>9}  missing (from the peers' README, not measured)"
    ]
    for row in rows:
        driver = "-" if row["driver_mb"] is None else f"{row['driver_mb']:.0f}"
        head = f"{row['n']:>7} {row['engine']:<7} {row['seconds']:>8.3f} {row['floor_seconds']:>8.3f}"
        tail = f"{row['ratio']:>6.3f} {row['ms_per_client']:>11.2f} {driver:>11} {row['total_mb']:>9.0f}"
        lines.append(f"{head} {tail}  {row['missing_by_readme']}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="the peers' programs; default: fedsim alone")
    parser.add_argument("--flower-python", metavar="PATH", help="Python with Flower")
    parser.add_argument("--pfl-python", metavar="PATH", help="Python with pfl-research")
    parser.add_argument("--n", nargs="+", type=int, default=[32, 128, 512], help="numbers of clients")
    parser.add_argument("--rounds", type=int, default=3, help="measured, after one warm-up round")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    rows = []
    with scratch_folder() as scratch:
        for row in results(given, scratch):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
