"""Trackers that are in trouble, for trackers.py: one hangs, one dies."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsim.trackers.base import Status, Tracker
from fedsim.trackers.tracked import Tracked


class Hangs(Tracker):
    """Takes up nothing, ever."""

    def begin(self, run: Tracked) -> None:
        """Never returns."""
        time.sleep(1e6)

    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """Is not reached."""

    def end(self, status: Status, digest: str, figures: Sequence[Path]) -> None:
        """Is not reached."""


class Dies(Hangs):
    """Ends its process as soon as there is something to tell."""

    def begin(self, run: Tracked) -> None:
        """As if somebody had killed it."""
        raise SystemExit
