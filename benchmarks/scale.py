"""A run with very many clients, all of them in every round, and its cost: time, memory, disk.

    python benchmarks/scale.py [--n 10000] [--rounds 3] [--fuse K] [--channels 8] [--optimizer rmsprop|sgd]
                               [--out FOLDER] [--no-checkpoint] [--set KEY=VALUE ...]

Workload W (`workload.py`); for FedMRI with its term use `--set algorithm.beta=100`. Everything is written below a new
folder in `--out` that is removed at the end. The disk must hold the private state twice, in engine.scratch and in the
checkpoint (2.7 MB per client with 8 channels and RMSprop), and the data (0.3 MB per client). One JSON line for each
stage, then a table:

    import, data, actors     until the first round begins: fedsim itself; the sites and Ray; the actors
    round 1, 2, ...          each with its ledger
    checkpoint               the last one

with the peak memory of the driver (PSS without shared memory), of all processes with the object store and of the store
alone; bytes read and written by the processes, and by the disk for all of the machine; and the size of the folder at
the end of the stage. The floor is the bare loop of `floor.py` on fewer clients before the run, and after it to see
whether the machine has changed.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import Watch, floor_seconds, watched
from workload import Case, free_run, scratch_folder

Row = dict[str, Any]
STAGE_ENDS = {"imported": "import", "ready": "data", "round_ends": "round", "done": "checkpoint"}


def disk_traffic(folder: Path) -> tuple[int, int]:
    """Bytes that the disk of a folder has read and written so far; zeros if it does not count."""
    device = folder.stat().st_dev
    for line in Path("/proc/diskstats").read_text(encoding="ascii").splitlines():
        major, minor, _, _, _, read, _, _, _, written, *_ = line.split()
        if (int(major), int(minor)) == (os.major(device), os.minor(device)):
            return 512 * int(read), 512 * int(written)
    return 0, 0


def folder_bytes(folder: Path) -> int:
    """Bytes that the files in a folder take on disk."""
    return sum(512 * (Path(at) / name).lstat().st_blocks for at, _, names in os.walk(folder) for name in names)


def stage_that_ends(event: Row) -> str | None:
    """The stage that ends with an event, if any."""
    if event["event"] == "round_begins" and event["round"] == 1:
        return "actors"
    stage = STAGE_ENDS.get(event["event"])
    return f"round {event['round']}" if stage == "round" else stage


class Stages:
    """Turns the events of a run into one row per stage."""

    def __init__(self, case: Case, scratch: Path, out: Path, floor_ms: float) -> None:
        self._case, self._scratch, self._out, self._floor_ms = case, scratch, out, floor_ms
        self._since, self._disk = time.time(), disk_traffic(scratch)

    def row(self, event: Row, watch: Watch) -> Row | None:
        """The row of the stage that ends with an event, if any."""
        stage = stage_that_ends(event)
        if stage is None:
            return None
        row = {"stage": stage, "n": self._case.clients, "fuse": self._case.fuse, "seconds": event["time"] - self._since}
        if stage.startswith("round"):
            row |= self._beside_floor(row["seconds"])
        row |= watch.lap().row() | self._room(watch)
        self._since = event["time"]
        return row

    def _beside_floor(self, seconds: float) -> Row:
        per_client, floor = 1e3 * seconds / self._case.clients, self._floor_ms
        return {"ms_per_client": per_client, "floor_ms_per_client": floor, "ratio": per_client / floor}

    def _room(self, watch: Watch) -> Row:
        before, self._disk = self._disk, disk_traffic(self._scratch)
        read, written = (now - then for now, then in zip(self._disk, before, strict=True))
        spilled = folder_bytes(self._scratch / "scratch") + watch.unnamed_bytes(self._scratch)
        sizes = {"run": folder_bytes(self._out), "scratch": spilled}
        sizes["data"] = folder_bytes(self._scratch / "cache")
        room = {f"{name}_mb": size / 1e6 for name, size in sizes.items()}
        return {"disk_read_mb": read / 1e6, "disk_written_mb": written / 1e6, **room}


def results(case: Case, scratch: Path, given: argparse.Namespace) -> Iterator[Row]:
    """One row per stage, as they end."""
    floor_n = min(case.clients, given.floor_n)
    floor_ms = 1e3 * floor_seconds(floor_n, case.channels, given.processes) / floor_n
    without = ["--no-checkpoint"] if given.no_checkpoint else []
    out = free_run(scratch)
    stages = Stages(case, scratch, out, floor_ms)
    with watched(given.interval, *case.arguments(scratch, out), *without) as (watch, events):
        yield from (row for event in events if (row := stages.row(event, watch)))
    after_ms = 1e3 * floor_seconds(floor_n, case.channels, given.processes) / floor_n
    yield {"stage": "floor", "n": floor_n, "floor_ms_per_client": floor_ms, "after_ms_per_client": after_ms}


def table(rows: list[Row]) -> str:
    """The results as a table; memory and disk in GB."""
    sizes = {
        "driver": "driver", "total": "all", "store": "store", "read": "read", "written": "written",
        "disk_read": "disk r", "disk_written": "disk w", "run": "run", "scratch": "scratch", "data": "data",
    }  # fmt: skip
    heads = "".join(f" {head:>8}" for head in sizes.values())
    lines = [f"{'stage':<11} {'seconds':>8} {'ms/client':>9} {'floor':>6} {'ratio':>6}{heads}"]
    for row in rows[:-1]:
        of_round = f"{'-':>9} {'-':>6} {'-':>6}"
        if "ratio" in row:
            of_round = f"{row['ms_per_client']:>9.2f} {row['floor_ms_per_client']:>6.2f} {row['ratio']:>6.3f}"
        figures = "".join(f" {row[f'{key}_mb'] / 1e3:>8.2f}" for key in sizes)
        lines.append(f"{row['stage']:<11} {row['seconds']:>8.1f} {of_round}{figures}")
    floor = rows[-1]
    before, after = floor["floor_ms_per_client"], floor["after_ms_per_client"]
    lines.append(f"memory and disk in GB; floor of {floor['n']} clients: {before:.2f} ms before, {after:.2f} ms after")
    return "\n".join(lines)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fuse", type=int, default=1, help="clients that train as one network")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--optimizer", choices=["rmsprop", "sgd"], default="rmsprop")
    parser.add_argument("--out", type=Path, help="folder on a disk with room; default that for temporary files")
    parser.add_argument("--no-checkpoint", action="store_true", help="end without the last round's checkpoint")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between samples of memory")
    parser.add_argument("--processes", type=int, default=2, help="of the floor")
    parser.add_argument("--floor-n", type=int, default=128, help="clients of the floor")
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    rows = []
    with scratch_folder(given.out) as scratch:
        settings = (f"engine.scratch={scratch / 'scratch'}", *given.overrides)
        case = Case(
            given.n, given.channels, optimizer=given.optimizer, fuse=given.fuse, rounds=given.rounds, overrides=settings
        )
        for row in results(case, scratch, given):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
