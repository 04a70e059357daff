"""Ablations: values of some keys, in every combination or one key at a time."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from fedsim.analysis.scores import LOWER_IS_BETTER, along, axes_in, by_seed_at
from fedsim.report.ablation_figures import ablation_figures
from fedsim.report.findings import Differences, People, change, corrected, people_of
from fedsim.report.gains import gain_figures, of_gains
from fedsim.report.kinds.base import Found, StudyKind
from fedsim.report.wording import with_unit

_MOST_KEYS = 3  # columns of the table


class AblationKind(StudyKind):
    """Quality against the values of each axis."""

    description = "an ablation"
    shows_patients = True

    def axes(self, points: pd.DataFrame) -> list[str]:
        """The dotted keys that are varied; the regime, which names its values, instead of many of them."""
        keys = axes_in(points)
        return keys if len(keys) <= _MOST_KEYS else ["regime"]

    def figures(self, found: Found) -> Iterator[tuple[str, Figure]]:
        """Quality against each axis, and where one is varied at a time gains against the size of the shift."""
        yield from ablation_figures(found.points, found.reference, found.base)
        yield from gain_figures(found)

    def findings(self, found: Found, quality: str) -> Iterator[str]:
        """The values of each axis with the best and the worst mean; where one is varied at a time, gains along it."""
        people = people_of(found.by_quality[quality])
        if found.base and found.points["method"].nunique() > 1:
            return of_gains(found, quality, people)
        return _of_ablation(found.points, quality, people, found.base)


def _of_ablation(points: pd.DataFrame, quality: str, people: People, base: Mapping[str, Any]) -> Iterator[str]:
    """The values with the best and the worst mean, corrected for all pairs of values that they were chosen from."""
    whole = {axis: along(points.assign(text=points[axis].map(str)), axis, base) for axis in axes_in(points)}
    tables = {
        (str(method), axis): by_seed_at(own[own["method"] == method], "text", quality)
        for method in points["method"].unique()
        for axis, own in whole.items()
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
