"""What simulated time costs the engine for each event, and how well clients of overlapping rounds use two cores.

    python benchmarks/virtual.py [--n 10000] [--concurrency 200] [--buffer 50] [--steps 200] [--repeats 3]
                                 [--channels 8] [--clients 268] [--cores 2] [--turns 1000] [--out FOLDER] [--quick]

JSON lines, then a table. All times are those between the ends of rounds, with ledger, log and timetable.

    events    In one process, clients of workload W that train nothing (`noop.py`) and keep no optimizer: buffered, and
              without `time` as many clients a round as a buffer has, in turn. `event_ms` is the difference for each
              client's turn, beginning and end together, the median over repeats; `timetable_ms` what computing the
              timetable alone takes of it. Measured are rounds in the middle: in one round clients of the next are
              trained, too, so only over many does each have its own.
    speedup   Clients of workload W that train, in one process and on Ray with some cores: in rounds without `time`, and
              in modes buffered and asynchronous, where three quarters of them are at work, and a quarter of those make
              a buffer. `speedup` is the ratio of the seconds of all rounds, without start-up and checkpoints; of rounds
              without `time`, of all but the first, which makes the data. A round is validated never and kept at the
              end. `floor_speedup` is what the bare loop of `floor.py` gains on the same cores: rounds of as many
              clients, 64 at most, in one process and in several, in turn, before and after each mode; the median.
              `serial_of_floor` and `ray_of_floor` are the seconds of a client's turn beside those of the bare loop in
              as many processes.

`--quick` is a small form that takes a minute, to check that everything runs.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from floor import Floor
from workload import Case, free_run, scratch_folder

from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.federation import assemble
from fedsim.engine.host.training import make_learner
from fedsim.engine.observer import Observer
from fedsim.engine.record.run_directory import setup_of
from fedsim.engine.simulation import Simulation
from fedsim.workload.reading import load_workload

Row = dict[str, Any]
PAIRS = 3
"""Of rounds of the bare loop, after one to warm up."""
MOST_OF_FLOOR = 64  # clients
SPEEDS = "compute: {samples_per_s: [20, 400]}, uplink_mbps: [5, 100], downlink_mbps: [20, 500], jitter: 0.1"


class Clock(Observer):
    """The times at which the first round begins and each round ends [s]."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def round_begins(self, round_: int, clients: int) -> None:
        """Note the first."""
        if round_ == 1:
            self.times = [time.perf_counter()]

    def ended(self, row: Row) -> None:
        """Note the end of a round, which is in the ledger."""
        self.times.append(time.perf_counter())


def times(case: Case, scratch: Path) -> list[float]:
    """When the first round of a case begins and each ends [s]."""
    clock, workload = Clock(), load_workload(case.write(scratch), case.overrides)
    with Simulation(workload, free_run(scratch), observer=clock) as simulation:
        simulation.run(between=clock.ended)
    return clock.times


def turn_ms(case: Case, scratch: Path, turns: int) -> float:
    """Milliseconds of a client's turn with all else that a round costs, over rounds in the middle.

    Args:
        case: To run.
        scratch: For its run.
        turns: Of a round.
    """
    first, last = case.rounds // 4, 5 * case.rounds // 8
    ends = times(case, scratch)
    return 1e3 * (ends[last] - ends[first]) / ((last - first) * turns)


def timetable_ms(case: Case, scratch: Path) -> float:
    """Milliseconds of a turn in the timetable alone."""
    workload = load_workload(case.write(scratch), case.overrides).settled()
    timetable = Timetable.of(workload, assemble(workload).clients, make_learner(setup_of(workload)))
    assert timetable is not None
    begun = time.perf_counter()
    turns = sum(len(timetable.step(round_).turns) for round_ in range(1, case.rounds + 1))
    return 1e3 * (time.perf_counter() - begun) / turns


def events(given: argparse.Namespace, scratch: Path) -> Row:
    """The cost of an event over training."""
    every = ("engine.backend=serial", f"training.cohort={given.buffer}")
    mode = f"time={{mode: buffered, buffer: {given.buffer}, concurrency: {given.concurrency}, {SPEEDS}}}"
    plain, timed = (
        Case(given.n, given.channels, mode="noop", optimizer="sgd", rounds=given.steps, overrides=overrides)
        for overrides in (every, (*every, mode))
    )
    pairs = [[turn_ms(case, scratch, given.buffer) for case in (plain, timed)] for _ in range(given.repeats)]
    costs = [with_time - without for without, with_time in pairs]
    return {
        "part": "events", "n": given.n, "concurrency": given.concurrency, "buffer": given.buffer,
        "untimed_turn_ms": median(without for without, _ in pairs), "event_ms": median(costs),
        "event_ms_range": [min(costs), max(costs)], "timetable_ms": timetable_ms(timed, scratch),
    }  # fmt: skip


def speedups(given: argparse.Namespace, scratch: Path) -> Iterator[Row]:
    """Seconds of the rounds of a run in one process, and on some cores."""
    at_work = 3 * given.clients // 4
    buffer = at_work // 4
    modes = {
        "without time": ((), 1 + given.turns // given.clients, 1, given.clients),
        "buffered": ((f"time={{mode: buffered, buffer: {buffer}, concurrency: {at_work}, {SPEEDS}}}",),
                     given.turns // buffer, 0, buffer),
        "asynchronous": ((f"time={{mode: asynchronous, concurrency: {at_work}, {SPEEDS}}}",), given.turns, 0, 1),
    }  # fmt: skip
    after = floors(given)
    for mode, (keys, rounds, left_out, of_round) in modes.items():
        before, seconds = after, {}
        for backend in ("serial", "ray"):
            where = (f"engine.backend={backend}", *((f"engine.cores={given.cores}",) if backend == "ray" else ()))
            case = Case(given.clients, given.channels, rounds=rounds, overrides=(*keys, *where))
            found = times(case, scratch)
            seconds[backend] = found[-1] - found[left_out]
        after = floors(given)
        pairs = before + after
        gains = [alone / together for alone, together in pairs]
        one, several = (median(each) for each in zip(*pairs, strict=True))
        turns = (rounds - left_out) * of_round
        yield {
            "part": "speedup", "mode": mode, "clients": given.clients, "turns": turns, "cores": given.cores,
            **{f"{backend}_seconds": taken for backend, taken in seconds.items()},
            "speedup": seconds["serial"] / seconds["ray"],
            "floor_speedup": median(gains), "floor_speedup_range": [min(gains), max(gains)],
            "serial_of_floor": seconds["serial"] / turns / one, "ray_of_floor": seconds["ray"] / turns / several,
        }  # fmt: skip


def floors(given: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds of a client in the bare loop, in one process and in several, by pairs of rounds."""
    n = min(given.clients, MOST_OF_FLOOR)
    with Floor(n, 1, given.channels) as one, Floor(n, given.cores, given.channels) as several:
        pairs = [(one.round() / n, several.round() / n) for _ in range(1 + PAIRS)]
    return pairs[1:]


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="clients that train nothing")
    parser.add_argument("--concurrency", type=int, default=200, help="of them at work at once")
    parser.add_argument("--buffer", type=int, default=50, help="uploads of a server step")
    parser.add_argument("--steps", type=int, default=200, help="server steps, of which three eighths are measured")
    parser.add_argument("--repeats", type=int, default=3, help="of the cost of an event")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--clients", type=int, default=268, help="clients that train")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1000, help="turns of clients that train, about")
    parser.add_argument("--out", type=Path, help="folder for the scratch folder; default the temporary files'")
    parser.add_argument("--quick", action="store_true", help="few steps of small networks")
    given = parser.parse_args()
    if given.quick:
        given.steps, given.repeats, given.channels, given.clients, given.turns = 16, 1, 2, 12, 36
    with scratch_folder(given.out) as scratch:
        rows = [events(given, scratch)]
        print(json.dumps(rows[0]), flush=True)
        for row in speedups(given, scratch):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(table(rows))


def table(rows: list[Row]) -> str:
    """The results as a table."""
    first = rows[0]
    lines = [
        f"{first['n']:,} clients, concurrency {first['concurrency']}, buffer {first['buffer']}: "
        f"{first['event_ms']:.3f} ({first['event_ms_range'][0]:.3f} to {first['event_ms_range'][1]:.3f}) ms an event "
        f"over {first['untimed_turn_ms']:.3f} ms a turn; "
        f"the timetable alone {first['timetable_ms']:.3f} ms"
    ]
    lines += [
        f"{row['mode']:>13}: {row['serial_seconds']:7.1f} s in one process, {row['ray_seconds']:7.1f} s on "
        f"{row['cores']} cores, {row['speedup']:.2f} times as fast; the bare loop {row['floor_speedup']:.2f} times "
        f"({row['floor_speedup_range'][0]:.2f} to {row['floor_speedup_range'][1]:.2f}); a turn beside one of the bare "
        f"loop: {row['serial_of_floor']:.2f} in one process, {row['ray_of_floor']:.2f} on {row['cores']} cores"
        for row in rows[1:]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
