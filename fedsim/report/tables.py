"""Tables of studies as files: CSV with the numbers, Markdown and LaTeX (booktabs) with the text that is shown."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from fedsim.analysis.comparison import MEAN
from fedsim.core.files import replacing, write_text
from fedsim.report.overview import Column
from fedsim.report.wording import AXIS_LABELS, CI, P_SUBJECTS, Row, caption, chance, confidence, means, number, spread

Tables = dict[str, pd.DataFrame]
"""What `compare` returns, by quality."""

_MOST_SITES = 12  # columns; with more sites only their mean is shown
_MATHS = {"±": r"$\pm$", "−": "$-$", "†": r"$\dagger$"}


def write_tables(tables: Tables, reference: str, folder: Path) -> None:
    """Write differences by quality and site: one CSV, Markdown and LaTeX file per quality."""
    folder.mkdir(parents=True, exist_ok=True)
    for quality, table in tables.items():
        _write_csv(table, folder / f"{quality}.csv")
        write_text(folder / f"{quality}.md", markdown(table, quality, reference))
        write_text(folder / f"{quality}.tex", "\n".join(_latex_parts(table, quality, reference)))


def write_columns(numbers: pd.DataFrame, columns: Sequence[Column], path: Path) -> None:
    """Write a table as PATH.csv with its numbers, and as PATH.md and PATH.tex with the text of its columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = as_text(columns)
    _write_csv(numbers, path.with_suffix(".csv"))
    write_text(path.with_suffix(".md"), escape(as_markdown(shown), quote=False) + "\n")
    write_text(path.with_suffix(".tex"), as_latex(shown))


def as_text(columns: Sequence[Column]) -> pd.DataFrame:
    """A table of the columns' text."""
    return pd.DataFrame(
        list(zip(*[[cell.text for cell in column.cells] for column in columns], strict=True)),
        columns=[column.head for column in columns],
    )


def as_markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown; the first column is aligned left, the others, numbers, right.

    Not pandas' to_markdown: tabulate pads cells, so that one new number could change every line of docs/results.md.
    """
    heads = [str(head) for head in table]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" if "---" not in line else f"|{'|'.join(line)}|" for line in lines)


def as_latex(table: pd.DataFrame) -> str:
    """A table of text as LaTeX with the rules of booktabs, every special character escaped."""
    style = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    text: str = style.to_latex(hrules=True, column_format="l" + "r" * (table.shape[1] - 1))
    for sign, command in _MATHS.items():
        text = text.replace(sign, command)
    return text


def markdown(table: pd.DataFrame, quality: str, reference: str) -> str:
    """One table per regime: one row per method, one column per site; names are shown literally, markup included."""
    parts = (
        f"## {regime}: {AXIS_LABELS[quality]}, test split\n\n{as_markdown(shown)}\n\n{note}\n"
        for regime, shown, note in _by_regime(table, quality, reference)
    )
    return escape("\n".join(parts), quote=False)


def _latex_parts(table: pd.DataFrame, quality: str, reference: str) -> Iterator[str]:
    for regime, shown, note in _by_regime(table, quality, reference):
        title = " ".join(f"{regime}: {AXIS_LABELS[quality]}, test split. {note}".split())
        yield f"% {title}\n{as_latex(shown)}"


def _by_regime(table: pd.DataFrame, quality: str, reference: str) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Each regime, its table as text, and the note that belongs to it."""
    for regime in table["regime"].unique():
        yield regime, _regime_table(table[table["regime"] == regime], quality, reference), caption(table, regime)


def _regime_table(rows: pd.DataFrame, quality: str, reference: str) -> pd.DataFrame:
    sites = [site for site in rows["site"].unique() if site != MEAN]
    sites = sites if len(sites) <= _MOST_SITES else []
    stamped = set(rows.loc[rows["within_subject"], "site"])
    heads = ["method", "n", *(f"{site} †" if site in stamped else site for site in sites), MEAN]
    cells: Mapping[tuple[str, str], Row] = {(row["method"], row["site"]): row for row in rows.to_dict("records")}
    lines = []
    for row in means(rows, quality).to_dict("records"):
        own = [cells[row["method"], site] for site in (*sites, MEAN)]
        spreads = [spread(cell["mean"], cell["sd"], quality) for cell in own]
        ends = (
            number(row["difference"], quality, "+"),
            confidence(row["low"], row["high"], quality),
            chance(row["p_holm"]),
            chance(row["patient_p_holm"]),
        )
        lines.append([row["method"], str(row["seeds"]), *spreads, *ends])
    return pd.DataFrame(lines, columns=[*heads, f"difference to {reference}", CI, "p (Holm)", P_SUBJECTS])


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
