"""Comparisons of methods in explicitly listed regimes."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from fedsim.report.comparison_figures import comparison_figures
from fedsim.report.findings import of_regimes
from fedsim.report.kinds.base import Found, StudyKind


class CompareKind(StudyKind):
    """Methods against a reference, regime by regime."""

    description = "a comparison of methods"
    shows_patients = True
    shows_latents = True
    told_by_regime = True
    explains_intervals = True

    def axes(self, points: pd.DataFrame) -> list[str]:
        """The regime."""
        return ["regime"]

    def figures(self, found: Found) -> Iterator[tuple[str, Figure]]:
        """Convergence, differences, and gain over training alone."""
        return comparison_figures(found.volumes, found.curves, found.by_quality, found.reference)

    def findings(self, found: Found, quality: str) -> Iterator[str]:
        """Which methods differ from the reference."""
        return of_regimes(found.by_quality[quality], quality, found.reference)
