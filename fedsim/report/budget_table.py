"""What each method of a study was given: candidates to choose settings from, rounds, scored rounds and steps."""

from collections.abc import Iterator

import pandas as pd

from fedsim.report.overview import Cell, Column

_HEADS = {
    "candidates": "candidates", "search_rounds": "rounds per candidate", "rounds": "rounds", "scored": "rounds scored",
    "steps": "steps",
}  # fmt: skip


def budgets(points: pd.DataFrame, curves: pd.DataFrame, tuning: pd.DataFrame) -> pd.DataFrame:
    """What each method was given, in each regime.

    Args:
        points: Rows of results.parquet.
        curves: Rows of curves.parquet.
        tuning: Rows of tuning.parquet; may be empty.

    Returns:
        One row per regime and method: regime, method, candidates (per fold; 1: its settings were given), search_rounds
        (of the candidate with most), rounds, scored (validated rounds) and steps of a run (means over seeds and folds).
    """
    runs = points.groupby(["regime", "method"], sort=False)[["rounds", "steps"]].mean()
    trial = ["seed", "fold"] if "fold" in curves else ["seed"]
    scored = curves.groupby(["regime", "method", *trial])["psnr"].count().groupby(["regime", "method"]).mean()
    table = runs.assign(scored=scored, candidates=1.0, search_rounds=float("nan")).reset_index()
    for method, own in tuning.groupby("method") if len(tuning) else ():
        sizes = own.groupby([key for key in ("regime", "fold") if key in own]).size()
        table.loc[table["method"] == method, "candidates"] = float(sizes.max())
        if "rounds" in own:
            table.loc[table["method"] == method, "search_rounds"] = float(own["rounds"].max())
    return table[["regime", "method", *_HEADS]]


def budget_columns(table: pd.DataFrame) -> list[Column]:
    """The table to show; columns without values are left out."""
    keys = [key for key in ("regime", "method") if key == "method" or table["regime"].nunique() > 1]
    shown = [Column(key, tuple(Cell(str(value), str(value)) for value in table[key])) for key in keys]
    for key, head in _HEADS.items():
        if table[key].notna().any():
            shown.append(Column(head, tuple(_cell(value) for value in table[key])))
    return shown


def _cell(value: float) -> Cell:
    return Cell(_plain(value) if value == value else "", float(value))  # noqa: PLR0124 - NaN


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"


def equality(table: pd.DataFrame) -> Iterator[str]:
    """Whether all methods were given the same, in sentences."""
    same = [key for key in _HEADS if table[key].notna().any() and not _unlike(table, key)]
    if same:
        yield f"the same for all methods of a regime: {', '.join(_HEADS[key] for key in same)}"
    for key, head in _HEADS.items():
        for regime, rows in _unlike(table, key).items():
            order = rows.sort_values(key, kind="stable")[["method", key]].to_dict("records")
            least, most = (f"{_plain(row[key])} ({row['method']})" for row in (order[0], order[-1]))
            begin = f"{regime}: " if table["regime"].nunique() > 1 else ""
            yield f"{begin}NOT the same for all methods: {head}, from {least} to {most}"
    few = table[table["scored"] < table["rounds"]]
    if len(few):
        row = few.iloc[0]
        of = f"{_plain(row['scored'])} of {_plain(row['rounds'])}"
        yield f"the best round was chosen among some rounds only ({of} of {row['method']}); set metrics.every to 1"


def _unlike(table: pd.DataFrame, key: str) -> dict[str, pd.DataFrame]:
    """The regimes in which a column is not the same for all methods."""
    known = table.dropna(subset=key)
    return {str(regime): rows for regime, rows in known.groupby("regime", sort=False) if rows[key].nunique() > 1}
