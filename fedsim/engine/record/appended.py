"""Tables that grow while others read them: a folder of Parquet files, which becomes a single file at the end if small.

    clients.parquet/part-000000.parquet
                    part-000001.parquet

pandas and pyarrow read such a folder as one table. At every moment they see the rows that were written so far, each
once: rows are added by replacing the newest part with a longer one, and a part that has grown large is never touched
again. Rows are taken away from the newest part backwards, and a part that has none left stays as an empty file. So no
file disappears between the moment that a reader lists the folder and the moment that it opens the file. Replacing a
part is safe because a reader of a folder opens every file once; of a single file it reads the footer and the rows in
two steps, between which the file must not change.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedsim.core.errors import DamagedError
from fedsim.core.files import making, remove, replacing, sweep, sync, writing

_FULL = 1e6  # bytes in memory of a part that is not added to any more
_SMALL = 16e6  # bytes on disk of a table that becomes a single file
_PART = re.compile(r"part-\d{6}\.parquet")


class AppendedTable:
    """A table that one process writes, row by row; what is appended costs the same however long the table is."""

    def __init__(self, path: Path) -> None:
        """Nothing is read or written yet.

        Args:
            path: Of the table, which may exist as a folder of parts or as a single file; see `keep`.
        """
        self.path = path
        """A folder of parts, or a file."""
        self._next, self._previous = (path.with_name(f".{path.name}.{which}") for which in ("next", "previous"))
        self._schema = pa.schema([])
        self._number = 0  # of the part that is added to
        self._tail: list[pa.Table] = []  # its rows
        self._written = True

    def found(self) -> bool:
        """Whether there is a table, even if a process was killed while it took another form.

        Raises:
            WriteError: what was left cannot be put in order.
        """
        self._settle()
        return self.path.exists()

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of what is written, as far as it has them.

        Raises:
            DamagedError: it is missing, or is not what was written.
        """
        return read_arrow(self.path, [key for key in columns if key in self._schema.names])

    def append(self, rows: pa.Table) -> None:
        """Add rows, which `flush` writes. They may have new columns; rows without them are null there."""
        self._tail.append(rows.replace_schema_metadata())
        self._written = False

    def flush(self) -> None:
        """Write the rows that were appended.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
        """
        if self._written:
            return
        table = pa.concat_tables(self._tail, promote_options="permissive")
        self._widen(table.schema)
        self._write(self._number, table)
        self._written = True
        self._continue(table)

    def keep(self, rows: pc.Expression) -> None:
        """Continue the table that is there without its newest rows; what was appended and not written is dropped.

        Args:
            rows: Which rows stay: all up to some row.

        Raises:
            DamagedError: it is not what was written.
            WriteError: it cannot be written.
        """
        self._settle()
        with reading_table(self.path):
            parts = parts_of(self.path)
        with reading_table(parts[0]):
            pq.read_schema(parts[0]).empty_table().filter(rows)  # refuses another table before anything is changed
        if self.path.is_file():
            self._become_folder(read_arrow(self.path))
            parts = parts_of(self.path)
        self._forget()
        self._schema = read_arrow(parts[0]).schema
        newest = pa.table({})
        for number, part in reversed(list(enumerate(parts))):
            table = read_arrow(part)
            kept = table.filter(rows)
            if kept.num_rows < table.num_rows:
                self._write(number, kept)
            if kept.num_rows and not newest.num_rows:
                self._number, newest = number, kept
        self._continue(newest)

    def clear(self) -> None:
        """Remove the table, and what was appended."""
        with writing(self.path):
            for path in (self.path, self._next, self._previous):
                remove(path)
        self._forget()

    def merge(self) -> None:
        """Make the table a single file if it is small. A reader may have to open it again just then.

        Raises:
            DamagedError: it is not what was written.
            WriteError: it cannot be written.
        """
        if self.path.is_dir() and sum(part.stat().st_size for part in self.path.glob("part-*")) <= _SMALL:
            write_arrow(self._next, read_arrow(self.path))
            self._settle(replace=True)

    def _forget(self) -> None:
        self._schema, self._number, self._tail, self._written = pa.schema([]), 0, [], True

    def _continue(self, newest: pa.Table) -> None:
        """Add to the newest part, or begin another if that one is full."""
        full = newest.nbytes > _FULL
        self._number, self._tail = (self._number + 1, []) if full else (self._number, [newest])

    def _write(self, number: int, table: pa.Table) -> None:
        if self.path.is_dir():
            write_arrow(self.path / _part(number), table)
        else:
            self._make(self.path, table)

    def _make(self, folder: Path, table: pa.Table) -> None:
        """A folder with one part."""
        with making(folder) as unfinished:
            unfinished.mkdir()
            write_arrow(unfinished / _part(0), table)
        sync(folder.parent)

    def _widen(self, schema: pa.Schema) -> None:
        """Give the first part, which says what columns the table has, those of a later one."""
        wider = pa.unify_schemas([self._schema, schema], promote_options="permissive")
        if self._number and not wider.equals(self._schema):
            first = read_arrow(self.path / _part(0))
            self._write(0, pa.concat_tables([first, wider.empty_table()], promote_options="permissive"))
        self._schema = wider

    def _become_folder(self, table: pa.Table) -> None:
        self._make(self._next, table)
        self._settle(replace=True)

    def _settle(self, replace: bool = False) -> None:
        """Put the table's next form, complete under another name, in place of the present one; or finish doing so."""
        sweep(self.path)
        with writing(self.path):
            if replace:
                self.path.rename(self._previous)
            if not self.path.exists() and self._next.exists():
                self._next.rename(self.path)
                sync(self.path.parent)
            for path in (self._next, self._previous):
                remove(path)


def parts_of(path: Path) -> list[Path]:
    """The files of a table, the oldest first: those of its folder, or the table itself if it is a file.

    Raises:
        ValueError: one is missing, or another file is among them.
    """
    if not path.is_dir():
        return [path]
    there = {one.name for one in path.iterdir() if one.name[0] not in "._"}  # pandas and pyarrow ignore others
    parts = [_part(number) for number in range(max(1, len(there)))]
    for name in sorted(there.difference(parts)):
        if not _PART.fullmatch(name):
            raise ValueError(f"{name} is no part of it")
    for name in parts:
        if name not in there:
            raise ValueError(f"{name} is missing")
    return [path / name for name in parts]


def read_arrow(path: Path, columns: Sequence[str] | None = None, rows: pc.Expression | None = None) -> pa.Table:
    """A table that fedsim wrote, in one file or in parts, or some of its columns and rows.

    Raises:
        DamagedError: it is missing, or is not what was written.
    """
    with suppress(OSError, pa.ArrowException, ValueError):  # the second try finds what has become one file meanwhile
        return _read(path, columns, rows)
    with reading_table(path):
        return _read(path, columns, rows)


@contextmanager
def reading_table(path: Path) -> Iterator[None]:
    """Name the table when it cannot be read.

    Raises:
        DamagedError: it is missing, is not what was written, or has become one file this instant.
    """
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedError(f"{path}: is damaged, missing or another table ({reason})") from error


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write a table to a file, replacing what was there.

    Raises:
        WriteError: the disk is full, or the folder cannot be written.
    """
    with replacing(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def _read(path: Path, columns: Sequence[str] | None, rows: pc.Expression | None) -> pa.Table:
    parts_of(path)
    return pq.read_table(path, columns=columns, filters=rows, page_checksum_verification=True)


def _part(number: int) -> str:
    """Name of a part's file; by their names parts are in order."""
    return f"part-{number:06d}.parquet"
