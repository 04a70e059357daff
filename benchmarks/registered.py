"""Runs with up to a million registered phantom sites, of which a thousand train per round: start, rounds, memory, disk.

    python benchmarks/registered.py [--n 1000 100000 1000000] [--cohort 1000] [--rounds 5] [--channels 8]
                                    [--out FOLDER] [--quick] [--set KEY=VALUE ...]

Workload W (`workload.py`) with `training.cohort`. Each number of sites runs twice: first with data that are made where
they are first read, which takes longer than training, then with these data in the cache. Slices are read from there in
every round (`engine.slice_memory=0`), so that a client that comes back costs what a new one costs. JSON lines, then a
table:

    start     from the start of the process to the first round [s]
    making    median of all rounds in which data are made [s]
    driver    peak memory of the driver (PSS without shared memory) [GB]
    last      size of the last checkpoint [MB], and the number of clients whose state it has
    round     median of all rounds but the first, with the data in the cache [s]
    of floor  the same for a client, beside rounds of the bare loop of `floor.py` on two cores, with which these rounds
              alternate: the median over pairs. Runs are many minutes apart, in which a machine changes
    ratio     this beside that of the fewest sites

`--quick` is a small form that takes a minute, to check that everything runs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from floor import Floor
from overhead import alternate
from processes import watched
from scale import folder_bytes
from workload import Case, free_run, scratch_folder

Row = dict[str, Any]
MOST_OF_FLOOR = 64  # clients


def measured(case: Case, scratch: Path) -> Row:
    """Start [s], rounds [s], peak memory of the driver [MB], and the last checkpoint, of one run."""
    out, begun = free_run(scratch), time.time()
    rounds: list[float] = []
    start = 0.0
    with watched(0.2, *case.arguments(scratch, out), descendants=False) as (watch, events):
        for event in events:
            if event["event"] == "round_begins" and event["round"] == 1:
                start = event["time"] - begun
            elif event["event"] == "round_ends":
                rounds.append(event["seconds"])
        peak = watch.lap().row()
    last = max((out / "checkpoints").iterdir())
    segments = json.loads((last / "state.json").read_text(encoding="utf-8"))["segments"]
    states = sum(len(segment["clients"]) for segment in segments.values())
    return {
        "start_seconds": start, "making_seconds": rounds, "driver_mb": peak["driver_mb"],
        "checkpoint_mb": folder_bytes(last) / 1e6, "states": states,
    }  # fmt: skip


def beside_floor(case: Case, cohort: int, scratch: Path) -> Row:
    """Rounds of a case after its first [s], and what a client takes in them beside the bare loop."""
    clients = min(cohort, MOST_OF_FLOOR)
    with Floor(clients, 2, case.channels) as floor:
        turns = alternate(case, case.rounds - 1, floor, scratch, free_run(scratch))
    pairs = zip(turns.seconds[1:], turns.floor_seconds, strict=True)
    return {
        "round_seconds": turns.seconds[1:], "floor_ms": [1e3 * seconds / clients for seconds in turns.floor_seconds],
        "of_floor": [ours / cohort / (floors / clients) for ours, floors in pairs],
    }  # fmt: skip


def results(given: argparse.Namespace) -> Iterator[Row]:
    """One row for each number of sites."""
    fewest: float | None = None
    for n in given.n:
        overrides = (f"training.cohort={given.cohort}", "engine.slice_memory=0", *given.overrides)
        case = Case(n, given.channels, rounds=given.rounds, overrides=overrides)
        with scratch_folder(given.out) as scratch:
            row = {**measured(case, scratch), **beside_floor(case, given.cohort, scratch)}
        of_floor = statistics.median(row["of_floor"])
        fewest = fewest or of_floor
        yield {"n": n, "cohort": given.cohort, "channels": given.channels, **row, "ratio": of_floor / fewest}


def table(rows: list[Row]) -> str:
    """The results as a table."""
    heads = ("sites", "start s", "making s", "driver GB", "last MB", "states", "round s", "of floor", "ratio")
    lines = ["".join(f"{head:>11}" for head in heads)]
    for row in rows:
        making, round_, of_floor = (
            statistics.median(row[name]) for name in ("making_seconds", "round_seconds", "of_floor")
        )
        cells = (
            f"{row['n']:,}", f"{row['start_seconds']:.1f}", f"{making:.2f}", f"{row['driver_mb'] / 1e3:.2f}",
            f"{row['checkpoint_mb']:.0f}", f"{row['states']:,}", f"{round_:.2f}", f"{of_floor:.2f}",
            f"{row['ratio']:.2f}",
        )  # fmt: skip
        lines.append("".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 100_000, 1_000_000], help="registered sites")
    parser.add_argument("--cohort", type=int, default=1000, help="clients drawn per round")
    parser.add_argument("--rounds", type=int, default=5, help="two or more")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--out", type=Path, help="folder for the scratch folder; default the temporary files'")
    parser.add_argument("--quick", action="store_true", help="few sites, a small network, two rounds")
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if given.quick:
        given.n, given.cohort, given.rounds, given.channels = [300, 1_000_000], 8, 2, 2
    rows = []
    for row in results(given):
        print(json.dumps(row), flush=True)
        rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
