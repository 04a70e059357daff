"""The law of client count in words: what a tenfold number of clients does to quality and costs."""

from collections.abc import Iterator, Mapping

import pandas as pd

from fedsim.analysis.comparison import interval
from fedsim.analysis.scores import by_seed_at, with_costs
from fedsim.analysis.slopes import exponents, per_decade
from fedsim.report.findings import Differences, People, change, corrected
from fedsim.report.wording import CI

_COSTS = {
    "round_seconds": "time of a round", "megabytes": "bytes per client per round", "gigabytes": "memory",
    "driver_gigabytes": "memory of the driver",
}  # fmt: skip


def of_decades(points: pd.DataFrame, quality: str, reference: str, people: People) -> Iterator[str]:
    """Slopes per decade of N with intervals over seeds: of quality, of differences to the reference, and of costs.

    None where N spans less than a decade: nothing was seen of what a tenfold number does.

    Args:
        points: Rows of results.parquet.
        quality: psnr, ssim or nmse.
        reference: Method that differences refer to.
        people: Test subjects, by method.
    """
    if points["clients"].max() < 10 * points["clients"].min():
        return
    tables = {str(method): by_seed_at(own, "clients", quality) for method, own in points.groupby("method", sort=False)}
    slopes: Differences = {(name,): per_decade(table) for name, table in tables.items()}
    yield from _told(slopes, quality, people, "")
    beside = tables.pop(reference, None)
    if beside is not None:
        apart: Differences = {(name,): per_decade((table - beside).dropna(how="all")) for name, table in tables.items()}
        yield from _told(apart, quality, people, f" − {reference}")
    yield from _of_costs(points)


def _told(found: Differences, quality: str, people: Mapping[str, int], against: str) -> Iterator[str]:
    known = {key: values for key, values in found.items() if len(values)}
    p_values, tests = corrected(known, people)
    for key, values in known.items():
        told = change(values, quality, p_values[key], tests, people[key[0]])
        yield f"{key[0]}{against}, per tenfold N: {told}"


def _of_costs(points: pd.DataFrame) -> Iterator[str]:
    """The exponents of costs as powers of N, method by method."""
    for method, own in with_costs(points).groupby("method", sort=False):
        tables = {told: exponents(by_seed_at(own, "clients", cost)) for cost, told in _COSTS.items()}
        parts = [f"{told} as N^{_exponent(values)}" for told, values in tables.items() if len(values)]
        if parts:
            yield f"{method}, growth with N: {', '.join(parts)}"


def _exponent(values: "pd.Series[float]") -> str:
    found = interval(values.tolist())
    mean, low, high = (f"{round(number, 2) + 0.0:.2f}" for number in (found.mean, found.low, found.high))  # never -0.00
    return f"{mean} ({CI} [{low}, {high}])" if found.n > 1 else mean
