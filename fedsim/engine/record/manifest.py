"""manifest.parquet: a row per slice of every site, or of the sites that have taken part if sites are made by a rule."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fedsim.engine.federation import Federation
from fedsim.engine.record.appended import AppendedTable
from fedsim.engine.record.ledger import read_table, write_table


class Manifest:
    """The manifest of a run: whole from the start, or grown by each site whose clients first take part."""

    def __init__(self, run: Path, federation: Federation) -> None:
        """Nothing is read or written yet."""
        self._federation = federation
        self._table = AppendedTable(run / "manifest.parquet")
        self._there: set[str] = set()
        self._new: dict[str, None] = {}  # sites that `flush` writes

    def begin(self) -> None:
        """Write the sites that exist, or continue what was written.

        Raises:
            DamagedError: it cannot be read.
            WriteError: it cannot be written.
        """
        if not self._federation.by_rule:
            write_table(self._table.path, self._federation.manifest)
        elif self._table.found():
            self._table.keep(pc.scalar(True))
            self._there = set(self._table.read(["site"])["site"].to_pylist())
        else:
            self.add([*self._federation.manifest["site"].unique(), *self._known()])
            self.flush()

    def _known(self) -> list[str]:
        """Sites that have taken part although there is no manifest, because it was deleted."""
        clients = self._table.path.with_name("clients.parquet")
        return read_table(clients, ["site"])["site"].tolist() if clients.exists() else []

    def add(self, sites: Iterable[str]) -> None:
        """Add those sites that it lacks, whose rows `flush` writes."""
        if self._federation.by_rule:
            self._new.update((site, None) for site in sites if site not in self._there)

    def flush(self) -> None:
        """Write the rows of the sites that were added; the ledger needs those of its sites there.

        Raises:
            WriteError: it cannot be written.
        """
        if self._new:
            rows = self._federation.manifest_of(self._new)
            self._there.update(self._new)
            self._new = {}  # before anything can fail: the table keeps what it could not write
            self._table.append(pa.Table.from_pandas(rows, preserve_index=False))
        self._table.flush()

    def close(self) -> None:
        """Make it a single file if it is small.

        Raises:
            DamagedError: it cannot be read.
            WriteError: it cannot be written.
        """
        self._table.merge()
