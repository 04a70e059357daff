"""Studies of the number of clients N."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from fedsim.analysis.scores import by_seed_at, switches, with_costs
from fedsim.core.text import precise_duration
from fedsim.report.count_figures import count_figures
from fedsim.report.decades import of_decades
from fedsim.report.findings import Differences, People, change, corrected, of_regimes, people_of
from fedsim.report.kinds.base import Found, StudyKind


class ClientCountKind(StudyKind):
    """Quality and costs against the number of clients."""

    description = "a study of the number of clients"
    shows_patients = True
    explains_intervals = True

    def axes(self, points: pd.DataFrame) -> list[str]:
        """The number of clients."""
        return ["clients"]

    def figures(self, found: Found) -> Iterator[tuple[str, Figure]]:
        """Quality, differences and costs against N."""
        return count_figures(found.points, found.reference, found.note)

    def measured(self, points: pd.DataFrame) -> pd.DataFrame:
        """The points with `of_client`, milliseconds per client per round, and `of_driver`, its memory [GB]."""
        return points.assign(of_client=points["milliseconds"], of_driver=points["driver_gigabytes"])

    def findings(self, found: Found, quality: str) -> Iterator[str]:
        """Which methods differ from the reference, and how quality and costs change with N."""
        table = found.by_quality[quality]
        yield from of_regimes(table, quality, found.reference)
        yield from _of_counts(found.points, quality, people_of(table))
        yield from of_decades(found.points, quality, found.reference, people_of(table))
        yield from _of_samples(found.points)


def _of_counts(points: pd.DataFrame, quality: str, people: People) -> Iterator[str]:
    known = with_costs(points)
    by_method = {str(method): own for method, own in known.groupby("method", sort=False)}
    tables = {method: by_seed_at(own, "clients", quality) for method, own in by_method.items()}
    apart: Differences = {(name,): table.iloc[-1] - table.iloc[0] for name, table in tables.items() if len(table) > 1}
    p_values, tests = corrected(apart, people)
    for method, own in by_method.items():
        if (method,) in apart:
            few, many = tables[method].index[0], tables[method].index[-1]
            result = change(apart[method,], quality, p_values[method,], tests, people[method])
            yield f"{method}, from N = {few:,} to N = {many:,}: {result}"
            seconds = own.groupby("clients")["milliseconds"].mean() / 1e3
            few_s, many_s = precise_duration(seconds[few]), precise_duration(seconds[many])
            yield f"{method}: a round takes {few_s} per client at N = {few:,} and {many_s} at N = {many:,}"
    for method in switches(points):
        yield f"{method} has exact negatives at some N and moments at others: different terms, compare with care"


def _of_samples(points: pd.DataFrame) -> Iterator[str]:
    """The counts at which only some clients were tested."""
    if "tested" not in points:  # written by an older fedsim, which tested all
        return
    tested = points.groupby("clients")["tested"].max()
    parts = [f"{some:,} of {clients:,} clients" for clients, some in tested.items() if some < clients]
    if parts:
        yield f"scores are those of {', '.join(parts)}"
