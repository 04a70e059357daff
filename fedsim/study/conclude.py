"""What a comparison says: tables as CSV, Markdown and on the terminal, and the differences in words."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from html import escape as escape_html
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedsim.engine.ledger import read_table
from fedsim.engine.rundir import Run
from fedsim.errors import InputError
from fedsim.files import replacing, write_text
from fedsim.study.comparison import (
    CONFIDENCE,
    MEAN,
    QUALITIES,
    ZERO_FILLED,
    check_comparable,
    compare,
    other_differences,
    results_of,
    terms_of,
)
from fedsim.study.comparison_figures import comparison_figures
from fedsim.study.figures import save_figure
from fedsim.study.frozen import open_study
from fedsim.study.latents import latent_figure
from fedsim.study.method_panel import method_panels
from fedsim.study.results import collect, finished_points
from fedsim.study.study import Point

_LOWER_IS_BETTER = {"nmse"}
_UNITS = {"psnr": " dB", "ssim": "", "nmse": ""}
_FORMS = {"psnr": ".2f", "ssim": ".4f", "nmse": ".4f"}
_NAMES = {"psnr": "PSNR [dB]", "ssim": "SSIM", "nmse": "NMSE"}
_CI = f"{CONFIDENCE:.0%} CI".replace("%", " %")
_IN_LATENT_SPACE = {"single", "fedavg", "fedmri"}

Tables = dict[str, pd.DataFrame]
"""What `compare` returns, by quality."""
Row = Mapping[Hashable, Any]
"""One row of it."""


def conclude(folder: Path, console: Console) -> None:
    """Collect a study's results again, write its tables and figures, and say what the comparison shows.

    Raises:
        InputError: the folder is not a study, or its points cannot be compared.
    """
    plan = open_study(folder)
    results = collect(plan, folder)
    if results.empty:
        console.print("no point is finished yet, so there is nothing to compare")
        return
    finished = finished_points(plan, folder)
    by_regime = {regime: [point for point in finished if point.regime == regime] for regime in plan.study.regimes}
    for points in by_regime.values():
        check_comparable({point.label: terms_of(Run(folder / point.folder)) for point in points})
    tables = _tables(results, plan.study.reference)
    _write_tables(tables, plan.study.reference, folder / "tables")
    curves = read_table(folder / "curves.parquet")
    figures = folder / "figures"
    _write_figures(comparison_figures(results, curves, tables["psnr"], plan.study.reference), figures)
    for regime, points in by_regime.items():
        try:
            _write_figures(_images(points, folder), figures)
        except InputError as error:
            console.print(f"{regime}: some images are missing: {error}", soft_wrap=True, highlight=False, markup=False)
    _say(tables, plan.study.reference, console)
    console.print(f"tables: {folder / 'tables'}\nfigures: {figures}", soft_wrap=True, highlight=False)


def compare_runs(folders: Sequence[Path], reference: str | None, out: Path | None, console: Console) -> None:
    """Compare plain runs: say what shows, and write the tables if a folder is given.

    Raises:
        InputError: the runs cannot be compared, or the reference is none of their methods.
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
    tables = _tables(results, reference)
    _say(tables, reference, console)
    others = other_differences(runs.values())
    if others:
        console.print(f"the runs also differ in {', '.join(others)}", highlight=False, soft_wrap=True)
    if out is not None:
        _write_tables(tables, reference, out)
        console.print(f"tables: {out}", soft_wrap=True, highlight=False)


def _tables(results: pd.DataFrame, reference: str) -> Tables:
    return {quality: compare(results, quality, reference) for quality in QUALITIES}


def _say(tables: Tables, reference: str, console: Console) -> None:
    for regime in tables["psnr"]["regime"].unique():
        console.print(summary(tables, regime, reference))
        psnr = tables["psnr"]
        for line in sentences(psnr[psnr["regime"] == regime], "psnr", reference):
            console.print(line, highlight=False, soft_wrap=True, markup=False)


def sentences(table: pd.DataFrame, quality: str, reference: str) -> list[str]:
    """What the differences of one regime say, in words: a line for each method that differs, and one for the rest."""
    rows = table[(table["site"] == MEAN) & ~table["method"].isin([reference, ZERO_FILLED])]
    rows = rows.sort_values("mean", ascending=quality in _LOWER_IS_BETTER, kind="stable")
    lines = [_sentence(row, quality, reference) for row in rows.to_dict("records") if row["differs"]]
    unpaired = rows.loc[rows["pairs"] == 0, "method"]
    single = rows.loc[rows["pairs"] == 1, "method"]
    alike = rows.loc[(rows["pairs"] > 1) & ~rows["differs"], "method"]
    if len(alike):
        everyone = len(alike) == len(rows)
        who = f"no method differs from {reference}" if everyone else f"no difference from {reference}"
        lines.append(f"{who} beyond the spread over seeds" + (f": {', '.join(alike)}" if not everyone else ""))
    if len(single):
        lines.append(f"one seed in common with {reference}, so differences without an interval: {', '.join(single)}")
    if len(unpaired):
        lines.append(f"no seed in common with {reference}: {', '.join(unpaired)}")
    return lines


def _sentence(row: Row, quality: str, reference: str) -> str:
    better = (row["difference"] > 0) != (quality in _LOWER_IS_BETTER)
    first, second = (row["method"], reference) if better else (reference, row["method"])
    low, high = sorted((abs(row["low"]), abs(row["high"])))
    form, unit = _FORMS[quality], _UNITS[quality]
    return (
        f"{first} leads {second} by {abs(row['difference']):{form}}{unit}, "
        f"{_CI} [{low:{form}}, {high:{form}}], {row['pairs']} seeds"
    )


def summary(tables: Tables, regime: str, reference: str) -> Table:
    """One regime's means over sites, methods sorted by PSNR, with their paired differences to the reference."""
    psnr = _means(tables["psnr"], regime)
    others = {
        quality: {row["method"]: row for row in _means(tables[quality], regime).to_dict("records")}
        for quality in ("ssim", "nmse")
    }
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{regime}: test split, mean over sites", caption=caption(tables["psnr"], regime)
    )
    table.add_column("method", min_width=12, overflow="fold")
    for column in ("n", *_NAMES.values(), f"PSNR - {reference} [{_CI}]"):
        table.add_column(escape(column), justify="right", no_wrap=column != f"PSNR - {reference} [{_CI}]")
    for row in psnr.to_dict("records"):
        means = [f"{rows[row['method']]['mean']:{_FORMS[quality]}}" for quality, rows in others.items()]
        difference = f"{_difference(row, 'psnr')} {_confidence(row, 'psnr')}"
        bold = "bold" if row["method"] == reference else None
        table.add_row(row["method"], str(row["seeds"]), _spread(row, "psnr"), *means, Text(difference), style=bold)
    return table


def markdown(table: pd.DataFrame, quality: str, reference: str) -> str:
    """One quality's tables, one a regime: a row a method, a column a site; names show as they are, markup or not."""
    lines = (line for regime in table["regime"].unique() for line in _markdown(table, quality, regime, reference))
    return escape_html("\n".join(lines), quote=False)


def _markdown(table: pd.DataFrame, quality: str, regime: str, reference: str) -> Iterator[str]:
    rows = table[table["regime"] == regime]
    sites = [site for site in rows["site"].unique() if site != MEAN]
    stamped = set(rows.loc[rows["within_subject"], "site"])
    heads = ["method", "n", *(f"{site} †" if site in stamped else site for site in sites), MEAN]
    yield f"## {regime}: {_NAMES[quality]}, test split\n"
    yield "| " + " | ".join([*heads, f"difference to {reference}", _CI]) + " |"
    yield "|---" + "|---:" * (len(heads) + 1) + "|"
    cells = {(row["method"], row["site"]): row for row in rows.to_dict("records")}
    for row in _means(table, regime, quality).to_dict("records"):
        spreads = [_spread(cells[row["method"], site], quality) for site in (*sites, MEAN)]
        ends = (_difference(row, quality), _confidence(row, quality))
        yield "| " + " | ".join([row["method"], str(row["seeds"]), *spreads, *ends]) + " |"
    yield f"\n{caption(table, regime)}\n"


def caption(table: pd.DataFrame, regime: str) -> str:
    """What the numbers of a regime must not be read without."""
    rows = table[(table["regime"] == regime) & (table["site"] != MEAN)]
    within = list(rows.loc[rows["within_subject"], "site"].unique())
    parts = [
        "Mean ± standard deviation over n seeds; differences are paired by seed.",
        "Seeds divide the same subjects anew: the spread is over splits and starts, not over patients.",
    ]
    if rows["pairs"].max() > 1:
        parts.append(
            "Intervals: Student's t over seeds, each for itself, not corrected for the number of methods; * excludes 0."
        )
    elif rows["seeds"].max() == 1:
        parts.append("One seed: no spread and no interval.")
    else:
        parts.append("Fewer than two seeds in common: no interval.")
    if rows["seeds"].nunique() > 1:
        parts.append("Methods have different numbers of seeds: trust differences, not means.")
    if len(within) == rows["site"].nunique():
        parts.append("† All sites are within subject.")
    elif within:
        parts.append(f"† Within subject, and not in the mean over sites: {', '.join(within)}.")
    return " ".join(parts)


def _means(table: pd.DataFrame, regime: str, quality: str = "psnr") -> pd.DataFrame:
    """The rows of the mean over sites, the best first."""
    rows = table[(table["regime"] == regime) & (table["site"] == MEAN)]
    return rows.sort_values("mean", ascending=quality in _LOWER_IS_BETTER, kind="stable")


def _spread(row: Row, quality: str) -> str:
    form = _FORMS[quality]
    return f"{row['mean']:{form}}" + (f" ± {row['sd']:{form}}" if row["seeds"] > 1 else "")


def _difference(row: Row, quality: str) -> str:
    return f"{row['difference']:+{_FORMS[quality]}}" if row["pairs"] else ""


def _confidence(row: Row, quality: str) -> str:
    form = _FORMS[quality]
    return f"[{row['low']:+{form}}, {row['high']:+{form}}]" + " *" * row["differs"] if row["pairs"] > 1 else ""


def _write_tables(tables: Tables, reference: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for quality, table in tables.items():
        with replacing(folder / f"{quality}.csv") as temporary:
            table.to_csv(temporary, index=False)
        write_text(folder / f"{quality}.md", markdown(table, quality, reference))


def _images(points: Sequence[Point], folder: Path) -> Iterator[tuple[str, Figure]]:
    """What the first seed's models of a regime make of one slice a site, and how its sites lie in latent space."""
    runs = {point.method: Run(folder / point.folder) for point in points if point.seed == points[0].seed}
    if not runs:
        return
    regime = points[0].regime
    for number, figure in enumerate(method_panels(runs), start=1):
        yield f"panel-{regime}-{number}", figure
    shown = {label: run for label, run in runs.items() if run.workload.algorithm.name in _IN_LATENT_SPACE}
    if shown:
        yield f"latents-{regime}", latent_figure(shown)


def _write_figures(figures: Iterable[tuple[str, Figure]], folder: Path) -> None:
    for name, figure in figures:
        save_figure(figure, folder / f"{name}.png")
