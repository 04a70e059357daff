"""Reading a file that grows."""

import codecs
from collections.abc import Iterator
from pathlib import Path


class Tail:
    """A text file that another process appends to, or will make."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._rest = path, 0, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def pieces(self) -> Iterator[str]:
        """What is new."""
        if self._path.is_file():
            with self._path.open("rb") as file:
                file.seek(self._at)
                while piece := file.read(2**20):
                    self._at += len(piece)
                    yield self._decoder.decode(piece)

    def lines(self, last: bool) -> list[str]:
        """The lines that are new and complete; with `last`, what follows them too."""
        *lines, self._rest = (self._rest + "".join(self.pieces())).split("\n")
        rest, self._rest = ([self._rest], "") if last and self._rest else ([], self._rest)
        return lines + rest
