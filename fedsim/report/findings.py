"""What a study says, in sentences, made of its tables alone."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from fedsim.report.ablation_figures import axes_in, complete
from fedsim.report.count_figures import switches, with_costs
from fedsim.report.drawing import by_seed_at
from fedsim.report.scaling_law import LAWS, STRONG, WEAK, efficiencies, serial_shares, speed_ups, unit_of
from fedsim.report.wording import CI, LOWER_IS_BETTER, excludes_zero, number, sentences, with_unit
from fedsim.study.comparison import interval


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
    if kind == "ablation":
        return list(_of_ablation(points, quality))
    if kind in LAWS:
        return list(_of_scaling(points, kind, quality))
    compared = list(_of_regimes(tables[quality], quality, reference))
    return [*compared, *_of_counts(points, quality)] if kind == "client-count" else compared


def _of_regimes(table: pd.DataFrame, quality: str, reference: str) -> Iterator[str]:
    regimes = list(table["regime"].unique())
    for regime in regimes:
        begin = f"{regime}: " if len(regimes) > 1 else ""
        yield from (begin + line for line in sentences(table[table["regime"] == regime], quality, reference))


def _of_counts(points: pd.DataFrame, quality: str) -> Iterator[str]:
    known = with_costs(points)
    for method, own in known.groupby("method", sort=False):
        table = by_seed_at(own, "clients", quality)
        if len(table) > 1:
            few, many = table.index[0], table.index[-1]
            yield f"{method}, from N = {few} to N = {many}: {_change(table.loc[many] - table.loc[few], quality)}"
            seconds = own.groupby("clients")["round_seconds"].mean() / own.groupby("clients")["participants"].mean()
            yield (
                f"{method}: a round takes {1e3 * seconds[few]:.3g} ms a client at N = {few} "
                f"and {1e3 * seconds[many]:.3g} ms at N = {many}"
            )
    for method in switches(points):
        yield f"{method} has exact negatives at some N and moments at others: not the same term, compare with care"


def _change(differences: "pd.Series[float]", quality: str) -> str:
    """A difference paired by seed, in words."""
    found = interval(differences.dropna().tolist())
    if not np.isfinite(found.low):
        return f"{with_unit(found.mean, quality, '+')}, one seed: no interval"
    ends = f"{CI} [{number(found.low, quality, '+')}, {number(found.high, quality, '+')}]"
    beyond = "" if excludes_zero(found.low, found.high) else ", within the spread over seeds"
    return f"{with_unit(found.mean, quality, '+')}, {ends}, {found.n} seeds{beyond}"


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


def _of_ablation(points: pd.DataFrame, quality: str) -> Iterator[str]:
    whole = complete(points)
    for method, own in whole.groupby("method", sort=False):
        for axis in axes_in(points):
            table = by_seed_at(own.assign(**{axis: own[axis].map(str)}), axis, quality)
            order = table.mean(axis=1).sort_values(ascending=quality in LOWER_IS_BETTER)
            if len(order) > 1:
                best, worst = order.index[0], order.index[-1]
                gap = _change((table.loc[best] - table.loc[worst]), quality)
                yield f"{method}: {axis} is best at {best} ({with_unit(order[best], quality)}); against {worst}: {gap}"
