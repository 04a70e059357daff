"""Who watches a run."""

from fedsim.engine.host.messages import Row


class Observer:
    """What a display may want to know; the base ignores it."""

    def site_ready(self, site: str) -> None:
        """A site's shard is in the cache."""

    def round_begins(self, round_: int, clients: int) -> None:
        """So many clients are about to train."""

    def clients_done(self, rows: list[Row]) -> None:
        """Some clients have trained in this round."""

    def round_ends(self, row: Row) -> None:
        """A round is in the ledger."""
