"""Reading a table of the ledger while a run appends to it: a look costs what has changed since the last one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedsim.core.errors import DamagedError
from fedsim.engine.record.appended import parts_of, read_arrow, reading_table

NO_ROUND = 2**31 - 1
"""More than any round."""


class Change(NamedTuple):
    """Rounds of a table that are other ones now."""

    first: int
    """From this round on, all rows that were read are void."""
    rows: pa.Table
    """The rows of these rounds, or the first of them; those of later changes follow."""


class _Part(NamedTuple):
    path: Path
    stamp: tuple[int, ...]


class GrowingTable:
    """Some columns of a table with a column `round`, which may be written meanwhile as `AppendedTable` does."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Nothing is read yet, and the table need not exist.

        Args:
            path: Of the table, a folder of parts or a single file.
            columns: Those to be read, as far as the table has them; with `round`.
        """
        self._path, self._columns = path, tuple(columns)
        self._held: list[tuple[_Part, int]] = []  # parts that were read, each with its first round

    def forget(self) -> None:
        """Have the next look read everything again."""
        self._held = []

    def changes(self) -> Iterator[Change]:
        """What has changed since the last look, part by part; nothing if nothing has.

        A run that was resumed from an earlier round voids later ones. If an error ends a look, the next one begins
        with the part that could not be read.

        Raises:
            DamagedError: a part is not what was written.
        """
        parts = self._parts()
        pairs = zip(parts, (part for part, _ in self._held), strict=False)
        same = next((at for at, (now, then) in enumerate(pairs) if now != then), min(len(parts), len(self._held)))
        void = min((first for _, first in self._held[same:]), default=NO_ROUND)
        if same == len(parts) < len(self._held):
            del self._held[same:]
            yield Change(void, pa.table({"round": pa.array([], pa.int64())}))
        for part in parts[same:]:
            rows = self._rows(part)
            first = pc.min(rows["round"]).as_py() if rows.num_rows else NO_ROUND
            del self._held[same:]
            yield Change(min(first, void), rows)
            self._held.append((part, first))
            same, void = same + 1, NO_ROUND

    def _parts(self) -> list[_Part]:
        with reading_table(self._path):
            if not self._path.exists():
                return []
            stats = [(path, path.stat()) for path in parts_of(self._path)]
        return [_Part(path, (found.st_mtime_ns, found.st_ino, found.st_size)) for path, found in stats]

    def _rows(self, part: _Part) -> pa.Table:
        with reading_table(part.path):
            there = pq.read_schema(part.path).names
        if "round" not in there:
            raise DamagedError(f"{part.path}: is another table (it has no column round)")
        return read_arrow(part.path, [name for name in self._columns if name in there])
