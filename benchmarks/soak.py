"""What grows in a run of many rounds: memory, descriptors, processes, the object store.

    python benchmarks/soak.py [--n 8] [--rounds 200] [--warm-up 40] [--set KEY=VALUE ...]

Workload W with validation and checkpoints, sampled at the end of every round; `seconds` are those of the whole round,
with ledger and checkpoint. A line is fitted to the rounds after the warm-up; its slope per round is given with a 95 %
interval (from the means of tenths of the rounds, because neighbouring samples are not independent) and as the growth
over 1000 rounds. One JSON line for each quantity, then a table.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from processes import driven, memory
from scipy.stats import linregress
from scipy.stats import t as student
from workload import Case, free_run, scratch_folder

Row = dict[str, Any]
_PARTS = 10


def role(process: psutil.Process) -> str:
    """Whose memory a process below the driver holds: that of fedsim's actors, or Ray's own."""
    name = (process.cmdline() or [""])[0]
    return "actors_mb" if name.startswith(("ray::Host", "ray::Adder")) else "ray_mb"


def sample(driver: psutil.Process) -> dict[str, float]:
    """Present use of the driver and all its processes; shared memory is what the object store has touched."""
    own = {"driver_mb": 0.0, "actors_mb": 0.0, "ray_mb": 0.0}
    shared = descriptors = 0
    processes = [driver, *driver.children(recursive=True)]
    for process in processes:
        with suppress(OSError, psutil.Error):
            unshared, touched = memory(process.pid)
            own["driver_mb" if process is driver else role(process)] += unshared / 1e6
            shared += touched
            descriptors += process.num_fds()
    return {
        **own,
        "memory_mb": sum(own.values()),
        "store_mb": shared / 1e6,
        "descriptors": descriptors,
        "processes": len(processes),
        "temporary_files": sum(1 for _ in Path(tempfile.gettempdir()).glob("fedsim-*")),
    }


def sampled(case: Case) -> Iterator[dict[str, float]]:
    """A sample at the end of every round."""
    with scratch_folder() as scratch, driven(*case.arguments(scratch, free_run(scratch))) as (driver, events):
        begun = 0.0
        for event in events:
            if event["event"] == "round_begins":
                begun = event["time"]
            if event["event"] == "round_ends":
                seconds = event["time"] - begun
                yield {"round": event["round"], "seconds": seconds, **sample(psutil.Process(driver.pid))}


def slope(name: str, samples: Sequence[dict[str, float]]) -> Row:
    """How a quantity grows from round to round."""
    size = len(samples) // _PARTS
    parts = [samples[at * size : (at + 1) * size] for at in range(_PARTS)]
    rounds, values = ([statistics.fmean(one[key] for one in part) for part in parts] for key in ("round", name))
    flat = len(set(values)) == 1
    line = None if flat else linregress(rounds, values)
    by = float(line.slope) if line else 0.0
    error = float(line.stderr) * float(student.ppf(0.975, _PARTS - 2)) if line else 0.0
    return {
        "what": name,
        "mean": statistics.fmean(values),
        "slope": by,
        "low": by - error,
        "high": by + error,
        "per_1000_rounds": 1000 * by,
    }


def table(rows: list[Row]) -> str:
    """The results as a table."""
    lines = [f"{'':>16} {'mean':>9} {'per round':>13} {'95 % interval':>24} {'per 1000 rounds':>15}"]
    for row in rows:
        span = f"[{row['low']:.4f}, {row['high']:.4f}]"
        lines.append(
            f"{row['what']:>16} {row['mean']:>9.1f} {row['slope']:>13.4f} {span:>24} {row['per_1000_rounds']:>15.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=8, help="clients")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=40, help="rounds that do not count")
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    case = Case(given.n, evaluate=True, checkpoints=True, rounds=given.rounds, overrides=tuple(given.overrides))
    samples = list(sampled(case))[given.warm_up :]
    rows = [slope(name, samples) for name in samples[0] if name != "round"]
    for row in rows:
        print(json.dumps(row), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
