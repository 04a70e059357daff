"""The base class of all trackers, small classes that are also the workload section that configures them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from fedsim.core.named import Named
from fedsim.trackers.tracked import Tracked

Status = Literal["finished", "stopped", "failed"]
"""How a run or a study ended; one that was stopped can be resumed."""


class Tracker(Named, ABC):
    """Tells a service about one run or study. Lives in a separate process, so it may be slow, hang or raise."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Modules that the extra `track` installs and it needs."""

    @abstractmethod
    def begin(self, run: Tracked) -> None:
        """Open the service for a run or a study, new or resumed; called once, before all else."""

    def reached(self, run: Tracked) -> int:
        """The last round that the service has, 0 for none; later ones follow. Default what fedsim has noted."""
        return int(run.notes.get("round", 0))

    @abstractmethod
    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """Take up a round; when it returns, the round need not be told again.

        Args:
            round_: Its number, each once and in ascending order.
            values: rounds/COLUMN of rounds.parquet and clients/COLUMN/CLIENT of clients.parquet; none is NaN.
        """

    @abstractmethod
    def end(self, status: Status, digest: str, figures: Sequence[Path]) -> None:
        """Close the service.

        Args:
            status: How the run or study ended.
            digest: Of the run's last checkpoint: the same for the same bits; empty if there is none.
            figures: Images (PNG) of the report, if it was written.
        """
