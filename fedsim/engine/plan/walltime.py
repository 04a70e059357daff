"""The time that a run may take, and whether another round ends within it."""

import logging
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from fedsim.core.errors import InputError
from fedsim.core.text import duration

log = logging.getLogger("fedsim")

LOOKED_AT = 5
"""Rounds that the next one is expected to be like, or more where validation is less often."""
MORE, ENDING_S = 1.1, 30.0
"""The margin: a tenth more than was measured, and half a minute to end in [s]."""
_TEXT = re.compile(r"(?:(?:(\d{1,4})-)?(\d{1,4}):)?(\d{1,4}):([0-5]\d)")


class Walltime:
    """The time that a run, or all runs of a study, may take.

    A round begins if the longest of the last rounds and the longest writing of a checkpoint, both with the margin, fit
    into what is left. Before any round has been measured one begins all the same: so every session makes progress, and
    a run that is resumed again and again comes to its end.
    """

    def __init__(self, seconds: float = math.inf, clock: Callable[[], float] = time.time) -> None:
        """Begin now.

        Args:
            seconds: The time [s].
            clock: Returns the time [s]; one that processes of other nodes share, since points of a study may run there.
        """
        self._clock, self._limit, self._end = clock, seconds, clock() + seconds
        self._rounds = deque[float](maxlen=LOOKED_AT)
        self._since: float | None = None
        self._writing = self._checkpoint = 0.0
        self._warned = False
        self.why = ""
        """Why no further round has begun, to follow `stopped`; empty while another could."""

    @classmethod
    def of(cls, text: str | None) -> Self:
        """A time as SLURM writes it, H:MM:SS, MM:SS or D-HH:MM:SS; None: unlimited.

        Raises:
            InputError: it is not a time, or none.
        """
        if text is None:
            return cls()
        found = _TEXT.fullmatch(text)
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
        total = ((24 * days + hours) * 60 + minutes) * 60 + seconds
        if not total:
            raise InputError(f"--walltime {text:.40}: is not a time; write H:MM:SS, say 2:00:00, or D-HH:MM:SS")
        return cls(total)

    def begin(self, every: int, before: Sequence[float] = ()) -> None:
        """Note that the rounds of a run begin or, after a loss, begin again.

        Args:
            every: Rounds between validations; 0: none.
            before: How long its rounds have taken in earlier sessions [s].
        """
        self._rounds = deque(self._rounds, maxlen=max(LOOKED_AT, every))
        self._since = None
        left, longest = max(self._end - self._clock(), 0.0), max(before[-LOOKED_AT:], default=0.0)
        if not self._rounds and longest > left:
            self._warn(f"a round of this run took {duration(longest)}, and {duration(left)} are left; one begins, "
                       "since otherwise the run would never go on")  # fmt: skip

    def lasts(self) -> bool:
        """Where a run could end: whether there is time for another round; measures the one that has ended."""
        now = self._clock()
        if self._since is not None:
            self._rounds.append(now - self._since - self._writing)
        self._since, self._writing = now, 0.0
        needed = self._needed()
        if not self._rounds or now + needed <= self._end:
            return True
        if needed > self._limit:
            self._warn(f"is shorter than a round, which takes {duration(needed)} with its checkpoint; give it more")
        left = duration(max(self._end - now, 0.0))
        self.why = f": another round takes up to {duration(needed)}, and {left} of --walltime are left"
        return False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measures how long a checkpoint takes, which is written meanwhile."""
        begun = self._clock()
        yield
        taken = self._clock() - begun
        self._writing += taken
        self._checkpoint = max(self._checkpoint, taken)

    def _needed(self) -> float:
        """How long a round with its checkpoint may take, with the margin [s]."""
        return MORE * (max(self._rounds, default=0.0) + self._checkpoint) + ENDING_S

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("--walltime: %s", text)
