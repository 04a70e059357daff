"""A study's report: one self-contained HTML file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.analysis.comparison import FEWEST_SEEDS
from fedsim.analysis.patients import FEWEST_SUBJECTS, drawn_in
from fedsim.analysis.scores import QUALITIES
from fedsim.core.text import precise_duration
from fedsim.engine.record.run_directory import Run
from fedsim.report.budget_table import budget_columns, equality
from fedsim.report.overview import Cell, Column, columns_of
from fedsim.report.page import Picture, picture, write_page
from fedsim.report.study_tables import SHARED, StudyTables
from fedsim.report.time_table import FOLDED
from fedsim.report.tuning_table import tuning_columns
from fedsim.report.viewer import Stack
from fedsim.report.wording import AXIS_LABELS, CI, caption, number, range_text
from fedsim.study.tune import Tune

_MOST_POINTS = 300  # rows
_MOST_PICTURES = 2_200_000  # bytes of PNG files in the page; further figures are only named
_TITLES = {
    "convergence": "Convergence on validation data", "differences": "Differences to the reference",
    "scarcity": "Gain over training alone", "quality": "Test quality", "costs": "Time, bytes and memory",
    "scaling": "Time, speed-up and efficiency", "time-shares": "What the time went to",
    "panel": "Images of all methods", "latents": "Sites in latent space",
    "virtual-time": "Quality against simulated time", "patients": "Differences patient by patient",
}  # fmt: skip


def write_study_report(
    study: StudyTables, drawn: Sequence[Path], stacks: Sequence[Stack], missing: Sequence[str]
) -> Path:
    """Write STUDY/report.html and return its path.

    Args:
        study: Its tables.
        drawn: PNG files of its figures; shown as long as they fit.
        stacks: Content of the image viewer.
        missing: Notes on what else is missing.
    """
    path = study.folder / "report.html"
    shown, left_out = _fitting(drawn)
    content = {
        "study": study.plan.study,
        "kind": study.kind.description,
        "reference": study.reference,
        "counts": study.plan.describe(),
        "done": len(study.points),
        "planned": study.planned,
        "missing": [*missing, *_unfinished(study)],
        "failures": study.failures,
        "says": {quality: study.says(quality) for quality in QUALITIES},
        "qualities": {quality: AXIS_LABELS[quality] for quality in QUALITIES},
        "ci": CI,
        "fewest": {"seeds": FEWEST_SEEDS, "subjects": FEWEST_SUBJECTS},
        "judgement": study.judgement,
        "budgets": budget_columns(study.budgets),
        "equality": list(equality(study.budgets)),
        "training": study.training,
        "table": columns_of(study.overview, study.reference),
        "times": study.times,
        "points": _points(study.points),
        "points_left_out": max(0, len(study.points) - _MOST_POINTS),
        "pictures": shown,
        "left_out": left_out,
        "stacks": stacks,
        "facts": dict(_facts(study)),
        "tuning": tuning_columns(study.tuning) if len(study.tuning) else [],
        "files": {name: (study.folder / name).read_text(encoding="utf-8") for name in ("study.yaml", "base.yaml")},
        "provenance": _provenance(study),
    }
    write_page(path, "study.html.j2", content, {})
    return path


def _fitting(drawn: Sequence[Path]) -> tuple[list[Picture], list[str]]:
    """The figures as images of the page, and the names of those that would make it too large."""
    shown, left_out, size = [], [], 0
    for path in drawn:
        if size + path.stat().st_size > _MOST_PICTURES:
            left_out.append(path.name)
            continue
        size += path.stat().st_size
        shown.append(_picture(path))
    return shown, left_out


def _picture(path: Path) -> Picture:
    start, _, quality = path.stem.rpartition("-")
    if quality in QUALITIES:
        return picture(
            path, f"{_TITLES.get(start, start.replace('-', ' ').capitalize())}: {AXIS_LABELS[quality]}", ""
        ) | {"quality": quality}
    kind = next((kind for kind in _TITLES if path.stem == kind or path.stem.startswith(f"{kind}-")), path.stem)
    place = path.stem.removeprefix(kind).strip("-")
    return picture(path, _TITLES.get(kind, kind) + (f": {place}" if place else ""), "") | {"quality": ""}


def _unfinished(study: StudyTables) -> Iterator[str]:
    if len(study.points) < study.planned:
        yield f"The study is not finished: {len(study.points)} of {study.planned} points are done."
    if not study.finished:
        yield "Made from the study's tables alone: its runs are not here, so no images can be shown."
    if study.plan.study.folds and "virtual_s" in study.curves:
        yield FOLDED


def _points(points: pd.DataFrame) -> list[Column]:
    """Label, seed, quality and time of the first points."""
    some = points.head(_MOST_POINTS)
    heads = {"point": "point", "seed": "seed", "best_round": "best round"}
    shown = [Column(head, tuple(_plain(value) for value in some[key])) for key, head in heads.items()]
    for quality in QUALITIES:
        cells = tuple(Cell(number(value, quality), float(value)) for value in some[quality])
        shown.append(Column(AXIS_LABELS[quality], cells, quality))
    seconds = tuple(Cell(precise_duration(value), float(value)) for value in some["seconds"])
    return [*shown, Column("time of all rounds", seconds)]


def _plain(value: Any) -> Cell:  # noqa: ANN401 - text or a number of a table
    return Cell(value, value) if isinstance(value, str) else Cell(f"{value:g}", float(value))


def _facts(study: StudyTables) -> Iterator[tuple[str, str]]:
    """The conditions of the numbers."""
    points, volumes, file = study.points, study.volumes, study.plan.study
    yield "metric protocol", ", ".join(points["protocol"].unique())
    yield "normalisation", ", ".join(points["normalise"].unique())
    anew = "divides what a fold leaves for training" if file.folds else "divides the subjects anew"
    anew = "draws other subjects" if drawn_in(volumes).all() else anew
    yield "seeds", ", ".join(map(str, file.seeds)) + f" (each {anew} and draws masks and starts)"
    tested = volumes.groupby("seed")[["site", "subject"]].apply(lambda rows: len(rows.drop_duplicates()))
    folds = f" in {file.folds} folds, each tested once" if file.folds else ""
    yield "test split", f"by subject; {range_text(tested)} subjects a seed in {volumes['site'].nunique()} sites{folds}"
    yield "acceleration", f"{range_text(volumes['acceleration'], '.2f')}, measured"
    yield "round", "each point's best by validation PSNR; test data chose nothing"
    if points["rounds"].nunique() > 1:
        what = (
            "some points stopped early; seconds and bytes are of what each did, mean curves end with the first to stop"
        )
        yield "rounds", f"{range_text(points['rounds'])}: {what}"
    yield "a number", "mean over volumes and clients of a site, then over sites; spreads and intervals over seeds"
    if study.kind.explains_intervals:
        regime = str(study.by_quality["psnr"]["regime"].iloc[0])
        yield "intervals", caption(study.by_quality["psnr"], regime)
    if study.shared_machine:
        yield "times", SHARED
    of_folds = ", for each fold without its test subjects" if file.folds else ""
    if file.tune is not None:
        yield (
            "tuning",
            f"by validation PSNR, seed {file.tune.seed}, not one of the study's{of_folds}; {_budget(file.tune)}",
        )


def _budget(tune: Tune) -> str:
    """What tuning spends on each method."""
    if not tune.searches:
        return "every combination of the values of a method, so methods may have unlike numbers of candidates"
    pruned = f", pruned by {tune.pruner.kind} from round {tune.pruner.grace} on" if tune.pruner else ""
    return f"{tune.trials} trials of as many rounds for each method with keys to try (sampler {tune.sampler}{pruned})"


def _provenance(study: StudyTables) -> dict[str, str]:
    """Versions and machine of the first run, if that exists."""
    return Run(study.folder / study.finished[0].folder).workload.provenance or {} if study.finished else {}
