"""Time lost when the process of a client is killed: fedsim replaces it, goes back to the checkpoint, and repeats.

    python benchmarks/recovery.py [--n 12] [--epochs 20] [--per-actor 1 4 auto] [--set KEY=VALUE ...]

Workload W with a checkpoint after every round and longer local training. In some rounds a client's process is killed
(SIGKILL) just before it trains: an early, a middle and a late one in the list. "Lost" is the time of such a round, from
its first start to its end, beyond the median of undisturbed rounds of the same run; the floor is the part of the round
that was done when the process died. One JSON line for each kill, then a table.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from typing import Any

from processes import driven
from workload import Case, free_run, scratch_folder

Row = dict[str, Any]
KILLS = {4: 0.1, 7: 0.5, 10: 1.0}
"""Round, and relative position of the killed client in the list."""
ROUNDS = 12


def killed(case: Case) -> dict[int, str]:
    """The client that is killed in a round."""
    width = max(3, len(str(case.clients)))
    return {round_: f"P-{max(1, round(part * case.clients)):0{width}d}" for round_, part in KILLS.items()}


def results(case: Case, placement: str) -> Iterator[Row]:
    """One row per kill of a run."""
    faults = ", ".join(f"{{kind: kill, client: {client}, round: {at}}}" for at, client in killed(case).items())
    settings = ("engine.on_lost_process=replay", f"engine.clients_per_actor={placement}", f"faults=[{faults}]")
    case = Case(case.clients, checkpoints=True, rounds=ROUNDS, overrides=(*case.overrides, *settings))
    begun: dict[int, list[float]] = {}
    ended: dict[int, float] = {}
    with scratch_folder() as scratch, driven(*case.arguments(scratch, free_run(scratch))) as (_, events):
        for event in events:
            if event["event"] == "round_begins":
                begun.setdefault(int(event["round"]), []).append(event["time"])
            elif event["event"] == "round_ends":
                ended[int(event["round"])] = event["time"]
    usual = statistics.median(ended[at] - begun[at][0] for at in range(2, ROUNDS + 1) if at not in KILLS)
    for at, client in killed(case).items():
        first, again = begun[at]
        yield {
            "n": case.clients,
            "clients_per_actor": placement,
            "round": at,
            "client": client,
            "round_seconds": usual,
            "lost_seconds": ended[at] - first - usual,
            "back_seconds": again - first,
            "lost_rounds": (ended[at] - first - usual) / usual,
        }


def table(rows: list[Row]) -> str:
    """The results as a table."""
    lines = [
        f"{'per actor':>9} {'killed':>7} {'round [s]':>9} {'lost [s]':>8} {'resumes after [s]':>17} {'rounds lost':>11}"
    ]
    lines += [
        f"{row['clients_per_actor']:>9} {row['client']:>7} {row['round_seconds']:>9.2f} {row['lost_seconds']:>8.2f} "
        f"{row['back_seconds']:>17.2f} {row['lost_rounds']:>11.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=12, help="clients")
    parser.add_argument("--epochs", type=int, default=20, help="local epochs, which make the rounds long")
    parser.add_argument("--per-actor", nargs="+", default=["1", "4", "auto"], help="engine.clients_per_actor")
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    case = Case(given.n, overrides=(*given.overrides, f"training.local_epochs={given.epochs}"))
    rows = []
    for placement in given.per_actor:
        for row in results(case, placement):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
