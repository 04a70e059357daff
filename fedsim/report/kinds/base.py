"""The base class of what a kind of study shows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Found:
    """The tables of a study."""

    points: pd.DataFrame
    """Rows of results.parquet."""
    volumes: pd.DataFrame
    """Rows of volumes.parquet."""
    curves: pd.DataFrame
    """Rows of curves.parquet."""
    by_quality: dict[str, pd.DataFrame]
    """Differences by quality, from `compare`."""
    reference: str
    """The method that differences refer to."""
    note: str
    """A caveat about its times; may be empty."""
    base: Mapping[str, Any]
    """Where one axis is varied at a time, the values at which the others stand, by dotted key; else empty."""
    alone: str
    """The label of the method that trains each site alone; may be empty."""


class StudyKind(ABC):
    """What a kind of study shows from its tables."""

    description: str
    """The kind in words, for the report."""
    most_pictured: ClassVar[int] = 6
    """Number of regimes of which images are shown, at most."""
    shows_latents: ClassVar[bool] = False
    """Whether the sites are shown in latent space."""
    told_by_regime: ClassVar[bool] = False
    """Whether the terminal shows a table for each regime, with a bold reference and a caption on its tests."""
    shows_patients: ClassVar[bool] = False
    """Whether the differences of every test subject are drawn."""
    explains_intervals: ClassVar[bool] = False
    """Whether the report explains intervals and p values like the caption of a comparison."""

    @abstractmethod
    def axes(self, points: pd.DataFrame) -> list[str]:
        """The columns of results.parquet that, with the method, identify the rows of its table."""

    @abstractmethod
    def figures(self, found: Found) -> "Iterator[tuple[str, Figure]]":
        """Every figure that the tables allow, with its name."""

    @abstractmethod
    def findings(self, found: Found, quality: str) -> Iterator[str]:
        """The findings of the study for a quality (psnr, ssim or nmse), in sentences."""

    def measured(self, points: pd.DataFrame) -> pd.DataFrame:
        """The points with additional columns, for which the table shows means."""
        return points
