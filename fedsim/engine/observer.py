"""The interface for watching a run."""

from fedsim.engine.host.messages import Row


class Observer:
    """Is told what a run does and changes nothing; this base class ignores it all."""

    def site_ready(self, site: str) -> None:
        """A site's shard is in the cache."""

    def round_begins(self, round_: int, clients: int) -> None:
        """A round starts, in which this many clients train."""

    def clients_done(self, rows: list[Row]) -> None:
        """Some clients have trained in this round."""

    def round_ends(self, row: Row) -> None:
        """A round is in the ledger."""


class Observers(Observer):
    """Several that are told the same."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def site_ready(self, site: str) -> None:
        """Told to each."""
        for one in self._observers:
            one.site_ready(site)

    def round_begins(self, round_: int, clients: int) -> None:
        """Told to each."""
        for one in self._observers:
            one.round_begins(round_, clients)

    def clients_done(self, rows: list[Row]) -> None:
        """Told to each."""
        for one in self._observers:
            one.clients_done(rows)

    def round_ends(self, row: Row) -> None:
        """Told to each."""
        for one in self._observers:
            one.round_ends(row)
