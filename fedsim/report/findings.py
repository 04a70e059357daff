"""What a study says, in sentences, made of its tables alone."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from fedsim.analysis.comparison import MEAN, holm, interval, p_value, too_few
from fedsim.analysis.scaling_law import LAWS, STRONG, WEAK, efficiencies, serial_shares, speed_ups, unit_of
from fedsim.analysis.scores import by_seed_at
from fedsim.core.text import precise_duration
from fedsim.report.ablation_figures import axes_in, complete
from fedsim.report.count_figures import switches, with_costs
from fedsim.report.wording import CI, LOWER_IS_BETTER, confidence, sentences, verdict, with_unit

Differences = dict[tuple[str, ...], "pd.Series[float]"]
"""Differences by seed; what they are of begins with the method."""
People = Mapping[str, int]
"""How many different test subjects there are, by method."""


def findings(
    points: pd.DataFrame, tables: Mapping[str, pd.DataFrame], kind: str, quality: str, reference: str
) -> list[str]:
    """What a study says under one quality.

    Args:
        points: Rows of results.parquet.
        tables: Differences by quality, from `compare`.
        kind: Of the study.
        quality: psnr, ssim or nmse.
        reference: The method that differences are taken to.
    """
    tested = tables[quality][tables[quality]["site"] == MEAN]
    people = {str(method): int(least) for method, least in tested.groupby("method")["subjects"].min().items()}
    if kind == "ablation":
        return list(_of_ablation(points, quality, people))
    if kind in LAWS:
        return list(_of_scaling(points, kind, quality))
    compared = list(_of_regimes(tables[quality], quality, reference))
    return [*compared, *_of_counts(points, quality, people)] if kind == "client-count" else compared


def _of_regimes(table: pd.DataFrame, quality: str, reference: str) -> Iterator[str]:
    regimes = list(table["regime"].unique())
    for regime in regimes:
        begin = f"{regime}: " if len(regimes) > 1 else ""
        yield from (begin + line for line in sentences(table[table["regime"] == regime], quality, reference))


def _of_counts(points: pd.DataFrame, quality: str, people: People) -> Iterator[str]:
    known = with_costs(points)
    by_method = {str(method): own for method, own in known.groupby("method", sort=False)}
    tables = {method: by_seed_at(own, "clients", quality) for method, own in by_method.items()}
    apart: Differences = {(name,): table.iloc[-1] - table.iloc[0] for name, table in tables.items() if len(table) > 1}
    p_values, tests = _corrected(apart, people)
    for method, own in by_method.items():
        if (method,) in apart:
            few, many = tables[method].index[0], tables[method].index[-1]
            change = _change(apart[method,], quality, p_values[method,], tests, people[method])
            yield f"{method}, from N = {few} to N = {many}: {change}"
            seconds = own.groupby("clients")["round_seconds"].mean() / own.groupby("clients")["participants"].mean()
            few_s, many_s = precise_duration(seconds[few]), precise_duration(seconds[many])
            yield f"{method}: a round takes {few_s} per client at N = {few} and {many_s} at N = {many}"
    for method in switches(points):
        yield f"{method} has exact negatives at some N and moments at others: not the same term, compare with care"


def _corrected(apart: Differences, people: People) -> tuple[dict[tuple[str, ...], float], int]:
    """p of each difference after Holm's correction for all of them, and how many were tested."""
    p_values = [
        float("nan") if too_few(values.count(), people[key[0]]) else p_value(interval(values.dropna().tolist()))
        for key, values in apart.items()
    ]
    return dict(zip(apart, holm(p_values), strict=True)), int(np.isfinite(p_values).sum())


def _change(differences: "pd.Series[float]", quality: str, p: float, tests: int, subjects: int) -> str:
    """A difference paired by seed, in words."""
    found = interval(differences.dropna().tolist())
    ends = confidence(found.low, found.high, quality)
    told = [with_unit(found.mean, quality, "+"), f"{CI} {ends}, {found.n} seeds" if ends else ""]
    return ", ".join(filter(None, [*told, verdict(p, tests, found.n, subjects)]))


def _of_scaling(points: pd.DataFrame, kind: str, quality: str) -> Iterator[str]:
    unit = unit_of(points)
    for method, own in points.groupby("method", sort=False):
        gains = speed_ups(own, kind, "round_seconds")
        if len(gains) < 2:
            yield f"{method}: one number of {unit}, so there is no speed-up"
            continue
        most, share = gains.index[-1], efficiencies(gains).iloc[-1].mean()
        what = "times the work in a second" if kind == WEAK else "times as fast"
        first = f"{most:g} {unit} against {gains.index[0]:g}"
        yield f"{method}: {gains.iloc[-1].mean():.2f} {what} on {first}, efficiency {100 * share:.0f} %"
        yield f"{method}: serial share by {LAWS[kind]}'s law {_shares(serial_shares(own, kind, 'round_seconds'))}"
        if kind == STRONG:
            yield _same_answer(own, str(method), unit, quality)
    floor = serial_shares(points, kind, "floor_seconds")
    if floor:
        yield f"the bare training loop: {_shares(floor)}; what is more than this is the engine's"


def _shares(shares: list[float]) -> str:
    over = f" ({100 * min(shares):.1f} to {100 * max(shares):.1f} % over {len(shares)} seeds)" * (len(shares) > 1)
    return f"{100 * float(np.mean(shares)):.1f} %{over}"


def _same_answer(own: pd.DataFrame, method: str, unit: str, quality: str) -> str:
    """Whether the number of workers changed a result: it must not."""
    differing = own.groupby("seed")[quality].nunique().gt(1)
    seeds = ", ".join(str(seed) for seed in differing.index[differing])
    name = quality.upper()
    if seeds:
        return f"{method}: the test {name} is NOT the same on all numbers of {unit} for seed {seeds}"
    return f"{method}: the same test {name} to the last digit on every number of {unit}"


def _of_ablation(points: pd.DataFrame, quality: str, people: People) -> Iterator[str]:
    """The values with the best and the worst mean, corrected for all pairs of values that these were chosen from."""
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
    p_values, tests = _corrected(apart, people)
    for (method, axis), order in orders.items():
        if len(order) > 1:
            best, worst = order.index[0], order.index[-1]
            pair = (method, axis, best, worst)
            gap = _change(apart[pair], quality, p_values[pair], tests, people[method])
            mean = with_unit(order[best], quality)
            yield f"{method}: {axis} has its best mean at {best} ({mean}); against {worst}: {gap}"


def _best_first(table: pd.DataFrame, quality: str) -> "pd.Series[float]":
    return table.mean(axis=1).sort_values(ascending=quality in LOWER_IS_BETTER)
