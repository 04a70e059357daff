"""The warnings in a run's log.txt, and why it ended; read as the file grows."""

import re
from collections import deque
from pathlib import Path

from fedsim.data.reading import one_line

_MOST_BYTES = 1_000_000  # read at a time; of a longer log, the end
_MOST_KEPT = 20
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:(warning|error|critical): |(ended by \w+: ))(.*)")


class WarningsSoFar:
    """What a run's log warns of, and how it ended, the newest lines."""

    def __init__(self, path: Path) -> None:
        self._path, self._end = path, 0
        self._found: deque[tuple[str, str, str]] = deque(maxlen=_MOST_KEPT)

    def look(self) -> None:
        """Read the lines that were added.

        Raises:
            OSError: the file cannot be read.
        """
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            size = file.seek(0, 2)
            if size < self._end:  # another run's
                self._end = 0
                self._found.clear()
            file.seek(max(self._end, size - _MOST_BYTES))
            added = file.read(_MOST_BYTES)
            whole = added.rfind(b"\n") + 1  # the last line may be half-written
            self._end = file.tell() - len(added) + whole
        for line in added[:whole].decode(errors="replace").splitlines():
            if match := _LINE.match(line):
                when, level, ending, text = match.groups("")
                self._found.append((when, level or "ended", one_line(ending + text)))

    def rows(self) -> list[tuple[str, str, str]]:
        """Time, kind (warning, error or ended) and text of each, the newest first."""
        return list(reversed(self._found))
