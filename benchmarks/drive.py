"""Run a workload and print one JSON line per event, with its time, for benchmarks that watch from outside.

    python benchmarks/drive.py WORKLOAD OUT [--set KEY=VALUE ...] [--no-checkpoint]
    python benchmarks/drive.py WORKLOAD OUT [--set KEY=VALUE ...] --cli

Events, each with its `time` [s since 1970]: imported (fedsim), ready (data and Ray), round_begins, first_client (has
trained), round_ends, done (the last checkpoint is written). With `--cli` the command `fedsim run` itself runs, from its
first import to its report, and only the events of rounds are printed.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

from fedsim.engine.observer import Observer

Row = dict[str, Any]


class EnoughError(Exception):
    """All requested rounds are done; raised to end a run without its last checkpoint."""


def tell(event: str, at: float | None = None, **more: float) -> None:
    """Print an event."""
    print(json.dumps({"event": event, "time": at or time.time(), **more}), flush=True)


class Clock(Observer):
    """Prints the events of rounds, and ends the run after a given round, if any."""

    def __init__(self, last: int | None = None) -> None:
        self._last = last

    def round_begins(self, round_: int, clients: int) -> None:
        """Clients are about to train."""
        self._begun, self._waiting = time.time(), True
        tell("round_begins", self._begun, round=round_, clients=clients)

    def clients_done(self, rows: list[Row]) -> None:
        """Print when the first client is done."""
        if self._waiting:
            self._waiting = False
            tell("first_client", self._begun + min(row["wait_seconds"] + row["train_seconds"] for row in rows))

    def round_ends(self, row: Row) -> None:
        """The round is in the ledger."""
        tell("round_ends", round=row["round"], seconds=row["seconds"])
        if row["round"] == self._last:
            raise EnoughError


def run_command(workload: str, out: str, overrides: list[str]) -> None:
    """`fedsim run`, with its usual progress display, which also reports to a clock."""
    from fedsim.cli import app as cli  # noqa: PLC0415 - like the command itself, which imports only what it uses
    from fedsim.cli import progress  # noqa: PLC0415 - like the command itself, which imports only what it uses

    shown = progress.progress_of

    @contextmanager
    def told(*arguments: Any) -> Iterator[Observer]:  # noqa: ANN401 - whatever it takes
        with shown(*arguments):
            yield Clock()

    command = ["fedsim", "run", workload, "--out", out]
    command += [word for override in overrides for word in ("--set", override)]
    with patch.object(progress, "progress_of", told), patch.object(sys, "argv", command):
        cli.main()


def run(workload: str, out: str, overrides: list[str], checkpoint: bool) -> None:
    """All rounds, through the library."""
    from fedsim.engine.simulation import Simulation  # noqa: PLC0415 - see above
    from fedsim.workload.reading import load_workload  # noqa: PLC0415

    tell("imported")
    loaded = load_workload(workload, overrides)
    clock = Clock(None if checkpoint else loaded.training.rounds)
    with Simulation(loaded, out, observer=clock) as simulation, suppress(EnoughError):
        tell("ready")
        simulation.run()
        tell("done")


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", help="workload file")
    parser.add_argument("out", help="run directory")
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-checkpoint", action="store_true", help="end without the last round's checkpoint")
    parser.add_argument("--cli", action="store_true", help="run the command")
    given = parser.parse_args()
    if given.cli:
        run_command(given.workload, given.out, given.overrides)
    else:
        run(given.workload, given.out, given.overrides, not given.no_checkpoint)


if __name__ == "__main__":
    main()
