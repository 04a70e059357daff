"""How long `fedsim run` takes until its first round begins, and until the first client has trained.

    python benchmarks/startup.py [--n 32] [--channels 8] [--repeats 3] [--set KEY=VALUE ...]

From the start of the command's process, for a first run that generates and imports its data, and for runs that find
them imported. In alternation: a Python that imports torch, and one that starts Ray and an actor that imports torch,
which is the floor. Medians and ranges; one JSON line for each, then a table.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import driven, until_first_line
from workload import Case, free_run, scratch_folder

Row = dict[str, Any]
IMPORT_TORCH = "import torch; print(flush=True)"
RAY_AND_ACTOR = """
import ray

@ray.remote
class Actor:
    def ready(self):
        import torch

ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
ray.get(Actor.remote().ready.remote())
print(flush=True)
"""


def command_times(case: Case, scratch: Path) -> tuple[float, float]:
    """Seconds from the start of `fedsim run` until the first round begins, and until a client has trained."""
    begun = time.time()
    with driven(*case.arguments(scratch, free_run(scratch)), "--cli") as (_, events):
        at = {event["event"]: event["time"] - begun for event in events}
    return at["round_begins"], at["first_client"]


def python_time(program: str) -> float:
    """Seconds from the start of a Python program until it prints."""
    return until_first_line([sys.executable, "-c", program])


def result(what: str, case: Case, round_begins: Sequence[float], first_client: Sequence[float] = ()) -> Row:
    """Medians of repeated starts."""
    return {
        "what": what,
        "n": case.clients,
        "seconds": statistics.median(round_begins),
        "low": min(round_begins),
        "high": max(round_begins),
        "first_client_seconds": statistics.median(first_client) if first_client else None,
    }


def measure(case: Case, repeats: int) -> list[Row]:
    """All results; `ratio` is relative to Ray and an actor alone."""
    with scratch_folder() as scratch:
        first = command_times(case, scratch)
        turns = [
            (*command_times(case, scratch), python_time(IMPORT_TORCH), python_time(RAY_AND_ACTOR))
            for _ in range(repeats)
        ]
    begins, trained, imports, ray = zip(*turns, strict=True)
    rows = [
        result("fedsim run, first time", case, first[:1], first[1:]),
        result("fedsim run", case, begins, trained),
        result("import torch", case, imports),
        result("Ray and an actor with torch", case, ray),
    ]
    floor = statistics.median(ray)
    return [{**row, "floor_seconds": floor, "ratio": row["seconds"] / floor} for row in rows]


def table(rows: list[Row]) -> str:
    """The results as a table."""
    lines = [f"{'':<28} {'round begins [s]':>16} {'range':>13} {'ratio to floor':>14} {'first client [s]':>16}"]
    for row in rows:
        span = f"{row['low']:.2f} - {row['high']:.2f}"
        first = f"{row['first_client_seconds']:.2f}" if row["first_client_seconds"] else "-"
        lines.append(f"{row['what']:<28} {row['seconds']:>16.2f} {span:>13} {row['ratio']:>14.2f} {first:>16}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=32, help="clients")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback, like fedsim itself
    rows = measure(Case(given.n, given.channels, overrides=tuple(given.overrides)), given.repeats)
    for row in rows:
        print(json.dumps(row))
    print(table(rows))


if __name__ == "__main__":
    main()
