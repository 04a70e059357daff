"""Comparisons as text: what `fedsim compare` says about plain runs, and its tables; draws nothing."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedsim.analysis.comparison import MEAN, compare, labels_of, other_differences, results_of
from fedsim.analysis.curves import learning_curve
from fedsim.analysis.scores import QUALITIES, qualities_in
from fedsim.analysis.virtual_time import has_virtual_time
from fedsim.core.errors import InputError
from fedsim.core.terminal import print_whole
from fedsim.engine.record.run_directory import Run
from fedsim.report.overview import Column
from fedsim.report.tables import Tables, write_tables
from fedsim.report.time_table import FOLDED, Times, times_of
from fedsim.report.wording import (
    AXIS_LABELS,
    CI,
    P_SUBJECTS,
    caption,
    chance,
    confidence,
    means,
    number,
    sentences,
    spread,
)

NARROW: dict[str, Any] = {"collapse_padding": True, "pad_edge": False}  # so that most tables fit 80 columns


def compare_runs(folders: Sequence[Path], reference: str | None, out: Path | None, console: Console) -> None:
    """Compare plain runs: print what is shown, and write the tables if a folder is given.

    Raises:
        InputError: the runs cannot be compared, or the reference is not one of their methods.
    """
    twice = [str(folder) for index, folder in enumerate(folders) if folder in folders[:index]]
    if twice or len(folders) < 2:
        raise InputError(f"{twice[0]}: is named twice" if twice else "compare: needs two runs or more")
    runs = {str(folder): Run(folder) for folder in folders}
    results = results_of(runs)
    methods = list(results["method"].unique())
    reference = reference or ("fedmri" if "fedmri" in methods else methods[0])
    if reference not in methods:
        raise InputError(f"--reference {reference}: must be one of {', '.join(methods)}")
    tables = {quality: compare(results, quality, reference) for quality in qualities_in(results)}
    say(tables, reference, console)
    print_whole(by_site(tables["psnr"], reference), console)
    _say_times_of(runs, reference, console)
    for name, run in runs.items():
        if run.workload.tags:
            console.print(f"{name}: {', '.join(run.workload.tags)}", highlight=False, soft_wrap=True, markup=False)
    others = other_differences(runs.values())
    if others:
        console.print(f"the runs also differ in {', '.join(others)}", highlight=False, soft_wrap=True)
    if out is not None:
        write_tables(tables, reference, out)
        console.print(f"tables: {out}", soft_wrap=True, highlight=False)


def _say_times_of(runs: Mapping[str, Run], reference: str, console: Console) -> None:
    """Print the times of runs to a quality, in simulated time; none of folds, where a seed has several runs."""
    labels = labels_of(runs)
    keys = {at: (labels[at], run.workload.seed) for at, run in runs.items()}
    curves = pd.concat(
        [learning_curve(run, regime="all", method=keys[at][0], seed=keys[at][1]) for at, run in runs.items()]
    )
    if len({*keys.values()}) == len(keys):
        say_times(times_of(curves, {}, reference), console)
    elif has_virtual_time(curves):
        console.print(FOLDED, highlight=False, soft_wrap=True)


def say(tables: Tables, reference: str, console: Console) -> None:
    """Print each regime's table of means over sites, and the findings for PSNR."""
    for regime in tables["psnr"]["regime"].unique():
        of_regime = {quality: table[table["regime"] == regime] for quality, table in tables.items()}
        print_whole(summary(of_regime, regime, reference), console)
        for line in sentences(of_regime["psnr"], "psnr", reference):
            console.print(line, highlight=False, soft_wrap=True, markup=False)


def say_times(times: Times, console: Console) -> None:
    """Print the time to quality in simulated time, and what it says; nothing without it."""
    if times.reached.empty:
        return
    print_whole(shown_table(f"simulated time to {times.of_best} with the same seed", times.columns()), console)
    for line in times.sentences():
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def shown_table(title: str, columns: Sequence[Column]) -> Table:
    """Columns as a table in the terminal, in which heads wrap before cells do."""
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), **NARROW)
    for column in columns:
        _add_column(table, column.head, [cell.text for cell in column.cells])
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell.text) for cell in row))
    return table


def _add_column(table: Table, head: str, cells: Sequence[str]) -> None:
    """Add a column as wide as its widest cell: the first to the left, others to the right."""
    side: Literal["left", "right"] = "right" if table.columns else "left"
    table.add_column(escape(head), justify=side, overflow="fold", min_width=max(map(len, cells), default=0))


def by_site(psnr: pd.DataFrame, reference: str) -> Table:
    """PSNR of each method at every site, with differences to the reference; the best is bold."""
    sites = psnr[psnr["site"] != MEAN]
    methods, places, rows = list(dict.fromkeys(sites["method"])), [], []
    for site, own in sites.groupby("site", sort=False):
        of_method = {row["method"]: row for row in own.to_dict("records")}
        best = max(of_method, key=lambda method: of_method[method]["mean"])
        places.append(str(site))
        rows.append([_at_site(of_method.get(method), bold=method == best) for method in methods])
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"PSNR by site [dB], and the difference to {reference}"))
    _add_column(table, "site", places)
    for method, column in zip(methods, zip(*rows, strict=True), strict=True):
        _add_column(table, method, [cell.plain for cell in column])
    for place, cells in zip(places, rows, strict=True):
        table.add_row(place, *cells)
    return table


def _at_site(row: Mapping[Hashable, Any] | None, *, bold: bool) -> Text:
    if row is None:
        return Text("")
    apart = f" ({number(row['difference'], 'psnr', '+')})" if row["difference"] == row["difference"] else ""
    return Text(number(row["mean"], "psnr") + apart, style="bold" if bold else "")


def summary(tables: Tables, regime: str, reference: str) -> Table:
    """One regime's means over sites, methods sorted by PSNR, with their paired differences to the reference."""
    psnr = means(tables["psnr"], "psnr")
    others = {
        quality: {row["method"]: row for row in means(tables[quality], quality).to_dict("records")}
        for quality in ("ssim", "nmse")
    }
    rows = []
    for row in psnr.to_dict("records"):
        apart = f"{number(row['difference'], 'psnr', '+')} {confidence(row['low'], row['high'], 'psnr')}".strip()
        rest = [number(of_method[row["method"]]["mean"], quality) for quality, of_method in others.items()]
        own = spread(row["mean"], row["sd"], "psnr")
        chances = (chance(row[column]) for column in ("p_holm", "patient_p_holm"))
        rows.append((row["method"], str(row["seeds"]), own, *rest, apart, *chances))
    heads = ("method", "n", *(AXIS_LABELS[quality] for quality in QUALITIES), f"PSNR − {reference} [{CI}]")
    title, told = f"{regime}: test split, mean over sites", caption(tables["psnr"], regime)
    table = Table(box=box.SIMPLE_HEAD, title=title, caption=told, **NARROW)
    for head, cells in zip((*heads, "p (Holm)", P_SUBJECTS), zip(*rows, strict=True), strict=True):
        _add_column(table, head, cells)
    for cells in rows:
        table.add_row(*map(Text, cells), style="bold" if cells[0] == reference else None)
    return table
