"""What trackers cost a round: workload W on Ray with none, with each, with one that hangs and with one that dies.

    python benchmarks/trackers.py [--n 16] [--rounds 12] [--repeats 5]

Runs of a few rounds alternate, in one Ray. One JSON line for each: `ratio` is the time from the end of a round to the
end of the next, over that of the run without trackers beside it (median of repeats, with the lowest and the highest);
`share` is what the driver itself spends on telling, over a round: this is exact where `ratio` is noise.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from workload import Case, scratch_folder

from fedsim.engine.observer import Observer
from fedsim.engine.ray.backend import RayBackend
from fedsim.engine.simulation import run
from fedsim.engine.tracking.tracking import Trackers
from fedsim.workload.engine import Engine
from fedsim.workload.reading import load_workload

Row = dict[str, Any]
VARIANTS = ("none", "tensorboard", "mlflow", "wandb", "trouble:Hangs", "trouble:Dies")


class Clock(Observer):
    """The moments at which rounds ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def round_ends(self, row: Row) -> None:
        """A round is in the ledger."""
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Median round, without the first."""
        return statistics.median(after - before for before, after in zip(self.ends, self.ends[1:], strict=False))


@contextmanager
def telling() -> Iterator[list[float]]:
    """The times [s] that telling the trackers takes."""
    took: list[float] = []
    tell = Trackers.round_ends

    def timed(trackers: Trackers, row: Row) -> None:
        begun = time.perf_counter()
        tell(trackers, row)
        took.append(time.perf_counter() - begun)

    with patch.object(Trackers, "round_ends", timed):
        yield took


def one(case: Case, scratch: Path, out: Path, variant: str) -> tuple[float, float]:
    """Seconds of a round, and of telling its trackers."""
    chosen = [] if variant == "none" else [f"trackers=[{variant}]"]
    clock = Clock()
    with telling() as took:
        run(load_workload(case.write(scratch), [*case.overrides, *chosen]), out, observer=clock)
    return clock.seconds(), statistics.median(took)


def results(case: Case, repeats: int, scratch: Path) -> Iterator[Row]:
    """A row for each variant."""
    found: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for repeat in range(repeats):
        for variant in VARIANTS:
            found[variant].append(one(case, scratch, scratch / f"{repeat}-{variant.replace(':', '-')}", variant))
    plain = [seconds for seconds, _ in found["none"]]
    for variant, rows in found.items():
        ratios = [seconds / bare for (seconds, _), bare in zip(rows, plain, strict=True)]
        seconds, told = (statistics.median(column) for column in zip(*rows, strict=True))
        yield {
            "trackers": variant, "n": case.clients, "seconds": round(seconds, 4),
            "ratio": round(statistics.median(ratios), 4), "ratio_low": round(min(ratios), 4),
            "ratio_high": round(max(ratios), 4), "share": told / seconds,
        }  # fmt: skip


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16, help="clients")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with scratch_folder() as scratch:
        backend = RayBackend(Engine())
        for row in results(Case(given.n, rounds=given.rounds), given.repeats, scratch):
            print(json.dumps(row), flush=True)
        backend.close()


if __name__ == "__main__":
    main()
