"""Output that cannot fail a command: not on a full disk, into a closed pipe, or on a terminal without Unicode."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EPIPE
from typing import Any, TextIO, cast

log = logging.getLogger("fedsim")


class _Lasting:
    """A text stream. What cannot be encoded becomes '?'; after the first write that fails, all output is discarded."""

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - None: it was closed
        self._name = name
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        """Write some text, or discard it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Write buffered text, or discard it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a stream has
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        with suppress(OSError), open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), self._stream.fileno())
            self._stream.flush()
        if error.errno != EPIPE and self._name == "stdout":
            log.warning("stdout: cannot be written (%s); continuing without it", error.strerror)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Make standard output and error streams whose failures do not fail the command."""
    before = sys.stdout, sys.stderr
    lasting = _Lasting(sys.stdout, "stdout"), _Lasting(sys.stderr, "stderr")
    sys.stdout, sys.stderr = (cast("TextIO", stream) for stream in lasting)
    try:
        yield
    finally:
        for stream in lasting:
            stream.flush()
        for stream, was in zip(lasting, before, strict=True):
            if was is None:
                stream.close()
        sys.stdout, sys.stderr = before
