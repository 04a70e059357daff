"""How a point of a study ended."""

import math
from dataclasses import dataclass, field

DIVERGED = "diverged: "
"""Beginning of the error line of a point with diverged training."""
REFUSED = "refused: "
"""Beginning of the error line of a point whose settings do not suit its data or its machine."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a point ended."""

    error: str = ""
    """Error in one line; empty if it did not fail."""
    stopped: bool = False
    """Whether it was stopped before its last round."""
    pruned: bool = False
    """Whether it ended before its last round because it did badly for a trial of a search."""
    psnr: float = math.nan
    """PSNR [dB] of its best round, mean over sites; NaN if it has none."""
    rungs: dict[int, float] = field(default_factory=dict)
    """Of a trial: the best validation PSNR [dB] so far at each round at which it was judged."""
    seconds: float = 0.0
    """Time that the point took [s]."""
    warnings: tuple[str, ...] = ()
    """Warnings of a point in another process; those of a point in this process are logged."""

    @property
    def diverged(self) -> bool:
        """Whether training diverged."""
        return diverged(self.error)

    @property
    def refused(self) -> bool:
        """Whether the same run would be refused again."""
        return refused(self.error)


def diverged(error: str) -> bool:
    """Whether an error line says that training diverged."""
    return error.startswith(DIVERGED)


def refused(error: str) -> bool:
    """Whether an error line says that the same run would be refused again."""
    return error.startswith(REFUSED)


def is_answer(label: str, error: str) -> bool:
    """Whether a failed point is a tuning candidate whose failure is a result, not tried again."""
    return (diverged(error) or refused(error)) and label.rpartition("/")[2].startswith("tune-")
