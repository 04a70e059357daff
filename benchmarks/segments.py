"""What a checkpoint writes when a part of the clients has trained since the one before it.

    python benchmarks/segments.py [--n 10000] [--cohort 1000] [--rounds 40] [--channels 2]

Phantom clients that train nothing (`noop.py`): the private part of each moves by a random vector in its turn, so that
all states differ. In one process, with a checkpoint after every round. One JSON line per checkpoint: its clients and
files, what it added to the disk (`ratio`: to the states of the clients that trained), and its time. Then whether a run
that lost its last two checkpoints repeats them bit for bit, and whether the oldest that is kept can be read.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from workload import Case, scratch_folder

from fedsim.engine.host.training import make_learner
from fedsim.engine.observer import Observer
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.engine.simulation import Simulation
from fedsim.engine.state import checkpoint
from fedsim.engine.state.client_files import read_clients
from fedsim.engine.state.listing import list_checkpoints
from fedsim.workload.reading import load_workload

Row = dict[str, Any]
_KEPT = 3  # checkpoints


class Clock(Observer):
    """What every checkpoint has added to the disk, and the time from a round's last client until it is written."""

    def __init__(self, run: Path) -> None:
        self._run, self._trained = run, 0.0
        self.rows: list[Row] = []

    def clients_done(self, rows: list[Row]) -> None:
        """Some clients have had their turn."""
        self._trained = time.perf_counter()

    def round_ends(self, row: Row) -> None:
        """The round is in the ledger, and its checkpoint is written."""
        seconds = time.perf_counter() - self._trained
        last = list_checkpoints(self._run)[-1]
        sizes = {"files": last.files, "mb": last.size / 1e6, "written_mb": last.own / 1e6}
        self.rows.append({"round": row["round"], "clients": last.clients, **sizes, "seconds": round(seconds, 3)})


def simulate(case: Case, scratch: Path, out: Path) -> list[Row]:
    """Run a case, or resume it; a row for each checkpoint."""
    clock = Clock(out)
    with Simulation(load_workload(case.write(scratch), case.overrides), out, resume=True, observer=clock) as simulation:
        simulation.run()
    return clock.rows


def state_bytes(run: Run) -> int:
    """Size of a client's private state [bytes]."""
    return int(run.clients["private_bytes"].max())


def digests(run: Path, round_: int) -> Row:
    """Of the shared parameters and of each client's state."""
    state = checkpoint.read_state(run, round_)
    private = {name: digest for one in checkpoint.segments_of(state).values() for name, digest in one.clients.items()}
    return {"shared": state["file_digests"]["shared.safetensors"], **private}


def readable(run: Run, round_: int) -> int:
    """The number of clients whose states can be read at a round; each is compared with its digest."""
    layout = make_learner(setup_of(run.runnable)).flat("local")
    segments = checkpoint.segments_of(checkpoint.read_state(run.path, round_))
    return sum(1 for part in checkpoint.parts(run.path, round_, segments) for _ in read_clients(part, layout))


def repeated(case: Case, scratch: Path, run: Path) -> bool:
    """Whether a copy of a run without its last two checkpoints gives the same bits again."""
    copy = Path(shutil.copytree(run, run.with_name("repeated"), copy_function=os.link))
    for round_ in (case.rounds - 1, case.rounds):
        shutil.rmtree(checkpoint.folder(copy, round_))
    simulate(case, scratch, copy)
    return digests(copy, case.rounds) == digests(run, case.rounds)


def results(case: Case, cohort: int, scratch: Path) -> Iterator[Row]:
    """A row for each checkpoint, then the summary."""
    out = scratch / "run"
    rows = simulate(case, scratch, out)
    run = Run(out)
    usual = cohort * state_bytes(run) / 1e6
    for row in rows:
        yield {**row, "ratio": round(row["written_mb"] / usual, 3)}
    ratios = [row["written_mb"] / usual for row in rows]
    oldest = checkpoint.complete_rounds(out)[0]
    yield {
        "n": case.clients, "cohort": cohort, "state_kb": state_bytes(run) / 1e3, "ratio": statistics.median(ratios),
        "ratio_high": max(ratios), "files_high": max(row["files"] for row in rows),
        "seconds": statistics.median(row["seconds"] for row in rows), "same_bits": repeated(case, scratch, out),
        "oldest": oldest, "readable": readable(run, oldest),
    }  # fmt: skip


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="clients")
    parser.add_argument("--cohort", type=int, default=1000, help="clients in a round")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--channels", type=int, default=2, help="of the network")
    given = parser.parse_args()
    settings = (
        "algorithm.name=noop:Drift", "engine.backend=serial", f"engine.keep_last={_KEPT}",
        f"training.cohort={given.cohort}",
    )  # fmt: skip
    case = Case(given.n, given.channels, mode="noop", checkpoints=True, rounds=given.rounds)
    with scratch_folder() as scratch:
        for row in results(replace(case, overrides=settings), given.cohort, scratch):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
