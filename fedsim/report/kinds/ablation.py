"""Ablations: every combination of values of some keys."""

from collections.abc import Iterator
from itertools import combinations

import pandas as pd
from matplotlib.figure import Figure

from fedsim.analysis.scores import LOWER_IS_BETTER, axes_in, by_seed_at, complete
from fedsim.report.ablation_figures import ablation_figures
from fedsim.report.findings import Differences, People, change, corrected, people_of
from fedsim.report.kinds.base import Found, StudyKind
from fedsim.report.wording import with_unit


class AblationKind(StudyKind):
    """Quality against the values of each axis."""

    description = "an ablation"
    shows_patients = True

    def axes(self, points: pd.DataFrame) -> list[str]:
        """The dotted keys that are varied."""
        return axes_in(points)

    def figures(self, found: Found) -> Iterator[tuple[str, Figure]]:
        """Quality against each axis."""
        return ablation_figures(found.points, found.reference)

    def findings(self, found: Found, quality: str) -> Iterator[str]:
        """The values of each axis with the best and the worst mean."""
        return _of_ablation(found.points, quality, people_of(found.by_quality[quality]))


def _of_ablation(points: pd.DataFrame, quality: str, people: People) -> Iterator[str]:
    """The values with the best and the worst mean, corrected for all pairs of values that they were chosen from."""
    tables = {
        (str(method), axis): by_seed_at(own.assign(**{axis: own[axis].map(str)}), axis, quality)
        for method, own in complete(points).groupby("method", sort=False)
        for axis in axes_in(points)
    }
    orders = {key: _best_first(table, quality) for key, table in tables.items()}
    apart: Differences = {
        (*key, one, other): tables[key].loc[one] - tables[key].loc[other]
        for key, order in orders.items()
        for one, other in combinations(order.index, 2)
    }
    p_values, tests = corrected(apart, people)
    for (method, axis), order in orders.items():
        if len(order) > 1:
            best, worst = order.index[0], order.index[-1]
            pair = (method, axis, best, worst)
            gap = change(apart[pair], quality, p_values[pair], tests, people[method])
            mean = with_unit(order[best], quality)
            yield f"{method}: {axis} has its best mean at {best} ({mean}); against {worst}: {gap}"


def _best_first(table: pd.DataFrame, quality: str) -> "pd.Series[float]":
    return table.mean(axis=1).sort_values(ascending=quality in LOWER_IS_BETTER)
