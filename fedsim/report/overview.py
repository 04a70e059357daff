"""The table of a study: one row per group of points that differ only by seed, with spreads, differences and costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedsim.analysis.comparison import MEAN
from fedsim.analysis.scores import QUALITIES, with_costs
from fedsim.core.text import bytes_text, precise_duration
from fedsim.mri.references import UNTRAINED
from fedsim.report.kinds.base import StudyKind
from fedsim.report.wording import AXIS_LABELS, CI, P_SUBJECTS, Row, chance, confidence, number, spread

METHOD = "method"
"""The last of the columns that identify a row."""

_COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "round_seconds": ("time per round", precise_duration),
    "of_client": ("time per client", lambda value: precise_duration(value / 1e3)),
    "floor_seconds": ("bare loop per round", precise_duration),
    "speed_up": ("speed-up", "{:.2f}".format), "efficiency": ("efficiency", "{:.2f}".format),
    "megabytes": ("sent per client per round", lambda value: bytes_text(1e6 * value)),
    "gigabytes": ("memory", lambda value: bytes_text(1e9 * value)),
    "of_driver": ("of the driver", lambda value: bytes_text(1e9 * value)), "steps": ("steps", "{:,.0f}".format),
}  # fmt: skip
_OF_QUALITY = {
    "mean": "", "sd": "_sd", "pairs": "_pairs", "difference": "_difference", "low": "_low", "high": "_high",
    "p_holm": "_p", "patient_p_holm": "_patient_p",
}  # fmt: skip
"""Columns taken from `compare`, with the suffixes of their names here."""


@dataclass(frozen=True)
class Cell:
    """The text of a table's cell, and the value that it is sorted by."""

    text: str
    value: float | str
    """A number in the unit of its column, or a text."""


@dataclass(frozen=True)
class Column:
    """A column of a table to show."""

    head: str
    cells: tuple[Cell, ...]
    quality: str = ""
    """psnr, ssim or nmse, if it belongs to one of them."""

    @property
    def is_text(self) -> bool:
        """Whether it is text, not a number."""
        return any(isinstance(cell.value, str) for cell in self.cells)


def overview(points: pd.DataFrame, tables: Mapping[str, pd.DataFrame], kind: StudyKind) -> pd.DataFrame:
    """Means and standard deviations over seeds, differences to the reference paired by seed, and costs.

    Args:
        points: Rows of results.parquet.
        tables: Differences by quality, from `compare`.
        kind: Kind of the study.

    Returns:
        One row per regime and method, reconstructions without training first if there are any besides zero-filled: its
        keys, seeds, for each quality mean, _sd, _pairs, _difference, _low, _high, _p and _patient_p (both corrected),
        and mean costs.
    """
    keys = [*kind.axes(points), METHOD]
    known = kind.measured(with_costs(points).assign(**{key: points[key] for key in keys}))
    means = [
        {(row["regime"], row["method"]): {f"{quality}{end}": row[name] for name, end in _OF_QUALITY.items()}
         for row in table[table["site"] == MEAN].to_dict("records")}
        for quality, table in tables.items()
    ]  # fmt: skip
    rows = []
    for regime, of_regime in known.groupby("regime", sort=False):
        untrained = [label for label in UNTRAINED.values() if (regime, label) in means[0]]
        groups = dict(iter(of_regime.groupby("method", sort=False)))
        if len(untrained) > 1:  # zero-filled images alone are no reference
            groups = dict.fromkeys(untrained, of_regime.drop(columns=list(_COSTS), errors="ignore")) | groups
        for method, group in groups.items():
            row: dict[str, Any] = {**{key: group[key].iloc[0] for key in keys}, METHOD: method}
            row["seeds"] = group["seed"].nunique()
            for of_quality in means:
                row |= of_quality.get((regime, method), {})
            rows.append(row | {cost: group[cost].mean() for cost in _COSTS if cost in group})
    return pd.DataFrame(rows)


def columns_of(table: pd.DataFrame, reference: str) -> list[Column]:
    """An overview to show: text with the values to sort by; columns without values are left out."""
    keys = list(table.columns[: list(table.columns).index("seeds")])
    shown = [Column(_head(key), tuple(map(_key_cell, table[key]))) for key in keys]
    shown.append(Column("n", tuple(Cell(str(count), float(count)) for count in table["seeds"])))
    rows = table.to_dict("records")
    for quality in QUALITIES:
        told = tuple(Cell(spread(row[quality], row[f"{quality}_sd"], quality), row[quality]) for row in rows)
        shown.append(Column(AXIS_LABELS[quality], told, quality))
        if table[f"{quality}_pairs"].any():
            apart = tuple(Cell(_difference(row, quality), row[f"{quality}_difference"]) for row in rows)
            shown.append(Column(f"− {reference} [{CI}]", apart, quality))
        for head, end in (("p (Holm)", "_p"), (P_SUBJECTS, "_patient_p")):
            if table[f"{quality}{end}"].notna().any():
                chances = tuple(Cell(chance(row[f"{quality}{end}"]), row[f"{quality}{end}"]) for row in rows)
                shown.append(Column(head, chances, quality))
    for cost, (head, told_as) in _COSTS.items():
        if cost in table and table[cost].notna().any():
            cells = tuple(Cell(told_as(v) if np.isfinite(v) else "", float(v)) for v in table[cost])
            shown.append(Column(head, cells))
    return shown


def _head(key: str) -> str:
    return {"clients": "clients N"}.get(key, key)


def _key_cell(value: Any) -> Cell:  # noqa: ANN401 - whatever an axis holds
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return Cell(f"{value:g}", float(value)) if number else Cell(str(value), str(value))


def _difference(row: Row, quality: str) -> str:
    ends = confidence(row[f"{quality}_low"], row[f"{quality}_high"], quality)
    return " ".join((number(row[f"{quality}_difference"], quality, "+"), ends)).strip()
