"""The base class of what a kind of study shows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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
    """The method that differences are taken to."""
    note: str
    """A caveat about its times; empty where there is none."""


class StudyKind(ABC):
    """What a kind of study shows of its tables."""

    description: str
    """What such a study is, for its report."""
    most_pictured: ClassVar[int] = 6
    """Regimes at most whose images are shown."""
    shows_latents: ClassVar[bool] = False
    """Whether the sites are drawn in latent space."""
    told_by_regime: ClassVar[bool] = False
    """Whether the terminal shows a table for each regime, with a bold reference and a caption on its tests."""
    explains_intervals: ClassVar[bool] = False
    """Whether the report says of intervals and p values what the comparison's caption says."""

    @abstractmethod
    def axes(self, points: pd.DataFrame) -> list[str]:
        """The columns of results.parquet that, with the method, tell the rows of its table apart."""

    @abstractmethod
    def figures(self, found: Found) -> "Iterator[tuple[str, Figure]]":
        """Every figure that the tables allow, with its name."""

    @abstractmethod
    def findings(self, found: Found, quality: str) -> Iterator[str]:
        """What the study shows under a quality (psnr, ssim or nmse), in sentences."""

    def measured(self, points: pd.DataFrame) -> pd.DataFrame:
        """The points with further columns that its table shows the means of."""
        return points
