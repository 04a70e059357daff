"""Findings that several kinds of study share: differences paired by seed, in sentences."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from fedsim.analysis.comparison import MEAN, holm, interval, p_value, too_few
from fedsim.report.wording import CI, confidence, sentences, verdict, with_unit

Differences = dict[tuple[str, ...], "pd.Series[float]"]
"""Differences by seed, under keys that begin with the method."""
People = Mapping[str, int]
"""Number of distinct test subjects, by method."""


def people_of(table: pd.DataFrame) -> People:
    """The smallest number of test subjects in any regime of a table from `compare`, by method."""
    tested = table[table["site"] == MEAN]
    return {str(method): int(least) for method, least in tested.groupby("method")["subjects"].min().items()}


def of_regimes(table: pd.DataFrame, quality: str, reference: str) -> Iterator[str]:
    """Which methods differ from the reference, regime by regime; `table` is from `compare`."""
    regimes = list(table["regime"].unique())
    for regime in regimes:
        begin = f"{regime}: " if len(regimes) > 1 else ""
        yield from (begin + line for line in sentences(table[table["regime"] == regime], quality, reference))


def corrected(apart: Differences, people: People) -> tuple[dict[tuple[str, ...], float], int]:
    """p of each difference after Holm's correction for all of them, and the number of tests."""
    p_values = [
        float("nan") if too_few(values.count(), people[key[0]]) else p_value(interval(values.dropna().tolist()))
        for key, values in apart.items()
    ]
    return dict(zip(apart, holm(p_values), strict=True)), int(np.isfinite(p_values).sum())


def change(differences: "pd.Series[float]", quality: str, p: float, tests: int, subjects: int) -> str:
    """A difference paired by seed, in words."""
    found = interval(differences.dropna().tolist())
    ends = confidence(found.low, found.high, quality)
    told = [with_unit(found.mean, quality, "+"), f"{CI} {ends}, {found.n} seeds" if ends else ""]
    return ", ".join(filter(None, [*told, verdict(p, tests, found.n, subjects)]))
