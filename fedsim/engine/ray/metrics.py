"""What a run tells Ray's metrics, which Prometheus scrapes on every node and clusters/grafana.json shows."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedsim.engine.host.messages import Row
from fedsim.engine.observer import Observer
from fedsim.engine.record.ledger import TIMES

if TYPE_CHECKING:
    from ray.util.metrics import Counter

DIRECTIONS = ("uplink", "downlink")


class RayMetrics(Observer):
    """Counts for Ray; its own name for each begins with `ray_`, and that of a counter ends with `_total`."""

    def __init__(self) -> None:
        """In a process that is connected to Ray."""
        from ray.util.metrics import Counter, Gauge  # noqa: PLC0415 - Ray only where it is used

        self._round = Gauge("fedsim_round", "The last round that has ended.")
        self._rounds = Counter("fedsim_rounds", "Rounds that have ended, of all runs.")
        self._clients = Counter("fedsim_clients_done", "Clients that have trained in a phase of a round.")
        self._bytes = Counter("fedsim_bytes", "What the protocol sends between clients and the server.", ("direction",))
        self._seconds = Counter("fedsim_seconds", "Time of clients by kind, and of rounds.", ("kind",))

    def clients_done(self, rows: list[Row]) -> None:
        """Their number, bytes and times."""
        self._clients.inc(len(rows))
        for direction in DIRECTIONS:
            _add(self._bytes, "direction", direction, (row[f"{direction}_bytes"] for row in rows))
        for column in TIMES:
            _add(self._seconds, "kind", column.removesuffix("_seconds"), (row[column] for row in rows))

    def round_ends(self, row: Row) -> None:
        """Its number and time."""
        self._round.set(row["round"])
        self._rounds.inc()
        _add(self._seconds, "kind", "round", (row["seconds"],))


def _add(counter: "Counter", key: str, value: str, amounts: Iterable[float]) -> None:
    """Add to a counter, which takes positive numbers only."""
    if (amount := sum(amounts)) > 0:
        counter.inc(amount, {key: value})
