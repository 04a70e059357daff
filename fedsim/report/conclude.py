"""The results of a study: tables and figures as files, its report, and a summary in the terminal."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from fedsim.core.errors import InputError
from fedsim.core.terminal import print_whole
from fedsim.engine.record.run_directory import Run
from fedsim.report.budget_table import budget_columns, equality
from fedsim.report.compared import say, say_times, shown_table
from fedsim.report.endpoint import Judgement
from fedsim.report.figures import save_figure
from fedsim.report.latents import latent_figure
from fedsim.report.method_panel import method_panels
from fedsim.report.overview import METHOD, columns_of
from fedsim.report.study_report import write_study_report
from fedsim.report.study_tables import SHARED, StudyTables, study_tables
from fedsim.report.tables import write_columns, write_tables
from fedsim.report.tuning_table import tuning_columns
from fedsim.report.viewer import MOST_BYTES, MOST_SITES, Stack, stacks_of

_IN_LATENT_SPACE = {"single", "fedavg", "fedmri"}


def conclude(folder: Path, console: Console, *, trust: bool | None = False) -> None:
    """Collect a study's runs again if they are there, write its tables, figures and report, and print what it shows.

    Without its runs, everything is made from the tables except what shows images and latent features.

    Args:
        folder: The study's folder.
        console: For the summary.
        trust: Whose code may be executed to make images of the runs, as in `Run`.

    Raises:
        InputError: the folder is not a study, or its points cannot be compared.
        RunError: a table is missing or cannot be read.
    """
    study = study_tables(folder)
    if study.points.empty or study.volumes.empty:
        what = "point is finished" if study.points.empty else "method has been run with every fold of a seed"
        console.print(f"no {what} yet, so there is nothing to compare")
        return
    write_tables(study.by_quality, study.reference, folder / "tables")
    write_columns(study.overview, columns_of(study.overview, study.reference), folder / "tables" / "overview")
    if len(study.tuning):
        write_columns(study.tuning, tuning_columns(study.tuning), folder / "tables" / "tuning")
    write_columns(study.budgets, budget_columns(study.budgets), folder / "tables" / "budgets")
    if study.judgement is not None:
        _write_judgement(study.judgement, folder / "tables")
    if len(study.times.reached):
        write_columns(study.times.reached, study.times.columns(), folder / "tables" / "time-to-quality")
    drawn = _save(study.figures(), folder / "figures")
    missing: list[str] = []
    stacks = _images(study, drawn, missing, trust)
    report = write_study_report(study, drawn, stacks, missing)
    for line in missing:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    _say_endpoint(study, console)
    _say_study(study, console)
    say_times(study.times, console)
    _say_tuning(study.tuning, console)
    places = {"tables": folder / "tables", "figures": folder / "figures", "report": report}
    for what, path in places.items():
        console.print(f"{what}: {path}", soft_wrap=True, highlight=False)


def _images(study: StudyTables, drawn: list[Path], missing: list[str], trust: bool | None) -> list[Stack]:
    """Panels and latents of each regime's first seed, added to the drawn figures; returns the viewer's content."""
    stacks: list[Stack] = []
    regimes = list(dict.fromkeys(point.regime for point in study.finished))
    shown = regimes[: study.kind.most_pictured]
    for regime in shown:
        points = [point for point in study.finished if point.regime == regime]
        first = [point for point in points if point.seed == points[0].seed]
        runs = {point.method: Run(study.folder / point.folder, trust=trust) for point in first}
        try:
            drawn += _save(_pictures(regime, runs, with_latents=study.kind.shows_latents), study.folder / "figures")
            stacks += _stacks(regime, runs, len(shown))
        except InputError as error:
            missing.append(f"{regime}: some images are missing: {error}")
    return stacks


def _stacks(regime: str, runs: dict[str, Run], regimes: int) -> list[Stack]:
    """A regime's part of the viewer, which has one size limit for all regimes."""
    stacks = stacks_of(runs, max(1, MOST_SITES // regimes), MOST_BYTES // regimes)
    return [replace(stack, name=f"{regime}: {stack.name}") for stack in stacks] if regimes > 1 else stacks


def _pictures(regime: str, runs: dict[str, Run], *, with_latents: bool) -> Iterator[tuple[str, Figure]]:
    """Reconstructions of one slice per site by the models of a regime, and its sites in latent space."""
    for index, figure in enumerate(method_panels(runs), start=1):
        yield f"panel-{regime}-{index}", figure
    shown = {label: run for label, run in runs.items() if run.workload.algorithm.name in _IN_LATENT_SPACE}
    if shown and with_latents:
        yield f"latents-{regime}", latent_figure(shown)


def _save(figures: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Write every figure as PNG and PDF; returns the PNG files."""
    paths = []
    for name, figure in figures:
        paths.append(save_figure(figure, folder / f"{name}.png"))
        save_figure(figure, folder / f"{name}.pdf")
    return paths


def _write_judgement(judgement: Judgement, folder: Path) -> None:
    """The endpoint's tables."""
    if len(judgement.table):
        write_columns(judgement.table, judgement.columns(), folder / "endpoint")
    if len(judgement.floors):
        write_columns(judgement.floors, judgement.floor_columns(), folder / "worse-than-alone")


def _say_endpoint(study: StudyTables, console: Console) -> None:
    """What the endpoint shows, whether all methods were given the same, and what training did."""
    judged = study.judgement
    shown = [] if judged is None else [f"endpoint: {judged.told}", *judged.sentences()]
    given = equality(study.budgets) if shown or len(study.tuning) else ()
    for line in (*shown, *given, *(study.training if shown else ())):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _say_tuning(tuning: pd.DataFrame, console: Console) -> None:
    if tuning.empty:
        return
    *costs, chosen = tuning_columns(tuning)
    print_whole(shown_table("what choosing settings has cost", costs), console)
    folds = tuning["fold"].map(", fold {:g}".format) if "fold" in tuning else [""] * len(tuning)
    for regime, method, fold, cell in zip(tuning["regime"], tuning["method"], folds, chosen.cells, strict=True):
        line = f"chosen for {regime}/{method}{fold}: {cell.text or 'nothing yet'}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _say_study(study: StudyTables, console: Console) -> None:
    if study.kind.told_by_regime:
        say(study.by_quality, study.reference, console)
        return
    columns = columns_of(study.overview, study.reference)
    keys = columns[: 1 + next(index for index, column in enumerate(columns) if column.head == METHOD)]
    name = study.plan.study.name
    of_psnr = [column for column in columns if column.quality == "psnr"]
    print_whole(shown_table(f"{name}: test split, mean over sites", [*keys, columns[len(keys)], *of_psnr]), console)
    costs = [column for column in columns[len(keys) + 1 :] if not column.quality]
    if costs:
        table = shown_table(f"{name}: costs, mean over seeds", [*keys, *costs])
        table.caption = SHARED if study.shared_machine else None
        print_whole(table, console)
    for line in study.says("psnr"):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
