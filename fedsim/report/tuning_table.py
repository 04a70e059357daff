"""The table of a study's tuning: what was chosen for each method, and what the choice cost."""

import json
from collections.abc import Callable

import pandas as pd

from fedsim.report.overview import Cell, Column
from fedsim.report.wording import number
from fedsim.study.outcome import REFUSED

_COUNTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "candidates": ("candidates", "{:.0f}".format), "pruned": ("pruned", "{:.0f}".format),
    "diverged": ("diverged", "{:.0f}".format), "refused": ("refused", "{:.0f}".format),
    "rounds": ("rounds", "{:,.0f}".format), "core_hours": ("core-hours", "{:.3g}".format),
}  # fmt: skip


def tuning_costs(tuning: pd.DataFrame) -> pd.DataFrame:
    """One row per regime and method (and fold): the settings chosen, their validation PSNR [dB], and what all cost.

    Args:
        tuning: Rows of tuning.parquet; an older one lacks `state`, `rounds` and `core_hours`, which are NaN then.
    """
    known = tuning.reindex(columns=[*tuning.columns.union(["state", "rounds", "core_hours"], sort=False)])
    rows = []
    keys = ["regime", "method", *(["fold"] if "fold" in known else [])]
    for values, group in known.groupby(keys, sort=False):
        chosen = group[group["chosen"].astype(bool)]
        refused = group.loc[group["state"] == "refused", "error"]
        settings = json.loads(chosen["settings"].iloc[0]) if len(chosen) else {}
        rows.append({
            **dict(zip(keys, values, strict=True)), "candidates": len(group),
            "pruned": (group["state"] == "pruned").sum(), "diverged": (group["state"] == "diverged").sum(),
            "refused": len(refused), "first_refusal": refused.iloc[0].removeprefix(REFUSED) if len(refused) else "",
            "rounds": group["rounds"].sum(min_count=1), "core_hours": group["core_hours"].sum(min_count=1),
            "psnr": chosen["psnr"].iloc[0] if len(chosen) else float("nan"),
            "settings": ", ".join(f"{key} {_short(value)}" for key, value in settings.items()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def tuning_columns(costs: pd.DataFrame) -> list[Column]:
    """The table to show, of `tuning_costs`; columns that are empty or all zero are left out."""
    keys = [
        key for key in ("regime", "method", "fold") if key == "method" or (key in costs and costs[key].nunique() > 1)
    ]
    shown = [Column(key, tuple(Cell(str(value), str(value)) for value in costs[key])) for key in keys]
    for key, (head, told) in _COUNTS.items():
        if costs[key].fillna(0).any():
            shown.append(Column(head, tuple(Cell(told(value), float(value)) for value in costs[key])))
    if costs["first_refusal"].any():
        shown.append(Column("first refusal", tuple(Cell(text, text) for text in costs["first_refusal"])))
    psnr = tuple(Cell(number(value, "psnr"), float(value)) for value in costs["psnr"])
    chosen = tuple(Cell(text, text) for text in costs["settings"])
    return [*shown, Column("validation PSNR [dB]", psnr), Column("chosen", chosen)]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
