"""All known trackers, and finding a user's own: `trackers: [mymodule:MyTracker]`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, SerializeAsAny, WrapValidator

from fedsim.core.errors import InputError
from fedsim.core.extension import Catalogue
from fedsim.core.named import OR_NAME
from fedsim.core.section import distinct
from fedsim.trackers.base import Status, Tracker
from fedsim.trackers.mlflow import MLflow
from fedsim.trackers.tensorboard import TensorBoard
from fedsim.trackers.tracked import Tracked
from fedsim.trackers.wandb import WandB


class Unread(Tracker):
    """A user's tracker, of which only the keys are read: its file is not executed."""

    model_config = ConfigDict(extra="allow")

    def begin(self, run: Tracked) -> None:
        """Not known."""
        raise InputError(f"trackers: {self.name} is a user's own, whose code was not run")

    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """Never called."""

    def end(self, status: Status, digest: str, figures: Sequence[Path]) -> None:
        """Never called."""


_Known = TensorBoard | MLflow | WandB
TRACKERS = Catalogue(
    key="trackers",
    base=Tracker,
    unread=Unread,
    known=_Known.__args__,
    group="fedsim.trackers",
    noun="tracker",
)
"""Where a user's own trackers are found."""

AnyTracker = Annotated[
    SerializeAsAny[Annotated[_Known, Field(discriminator="name")]], WrapValidator(TRACKERS.read), TRACKERS, *OR_NAME
]
"""A known tracker, or one of the user's own: a name, or a section with the keys of that tracker."""


def _distinct(trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
    distinct([tracker.name for tracker in trackers])
    return trackers


AnyTrackers = Annotated[tuple[AnyTracker, ...], Field(max_length=8), AfterValidator(_distinct)]
"""Some trackers, each once: one that is there twice would write each round twice."""
