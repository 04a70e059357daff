"""What a live page is about, as sections that a browser is sent when they change."""

import json
import math
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from fedsim.data.reading import one_line

_LOOK_EVERY_S = 1.0
_PATIENCE = 4  # times the duration of a look, before the next one

Section = object
"""A part of a page, as JSON can hold it; of text that is JSON already, see `Json`."""


class Json(str):
    """A section as JSON."""

    __slots__ = ()


class Subject(Protocol):
    """A run, a study, or a folder of them."""

    def look(self) -> None:
        """Read what has changed. What cannot be read is a section of the page."""

    def sections(self) -> Mapping[str, Section]:
        """All parts of the page, by name."""

    def child(self, number: int) -> "Subject":
        """The run or study of a number from 0.

        Raises:
            IndexError: there is none.
        """


class Feed:
    """A subject's sections as JSON, for all who look at it: it is read at most once a second, and only if asked."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        """What it is about."""
        self._lock = threading.Lock()
        self._sections: Mapping[str, str] = {}
        self._due = 0.0

    def now(self) -> Mapping[str, str]:
        """Every section as JSON. Whatever a file holds, this does not fail: what went wrong is a section."""
        with self._lock:
            if time.monotonic() >= self._due:
                begun = time.monotonic()
                self._sections = self._read()
                self._due = begun + max(_LOOK_EVERY_S, _PATIENCE * (time.monotonic() - begun))
            return self._sections

    def _read(self) -> Mapping[str, str]:
        try:
            self.subject.look()
            return {name: as_json(content) for name, content in self.subject.sections().items()}
        except Exception as error:  # files that others write may hold anything, and the next look may succeed
            return {**self._sections, "unreadable": as_json([reason(error)])}


def as_json(content: Section) -> str:
    """A section as JSON."""
    return content if isinstance(content, Json) else json.dumps(content, allow_nan=False, separators=(",", ":"))


def reason(error: Exception) -> str:
    """Why something cannot be read, in a line."""
    text = one_line(str(error))
    return text if type(error).__module__.startswith("fedsim") and text else f"{type(error).__name__}: {text}"


def number(value: float, digits: int = 5) -> float | None:
    """A number in a few digits; None for one that JSON does not know."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
