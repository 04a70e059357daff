"""A page over many runs: one row per run, from their tables alone; executes no code of a run."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from fedsim.algorithms.stopping import EarlyStopping
from fedsim.analysis.scores import QUALITIES, mean_over_sites
from fedsim.core.errors import InputError, RunError
from fedsim.core.yaml import read_yaml
from fedsim.data.reading import one_line
from fedsim.engine.record.ending import state_of
from fedsim.engine.record.ledger import read_table
from fedsim.engine.state.checkpoint import complete_rounds, read_state
from fedsim.report.overview import Cell
from fedsim.report.page import write_page
from fedsim.report.wording import AXIS_LABELS, number
from fedsim.workload.names import POOLED

PAGE = "runs.html"
_HEADS = (
    "run", "method", "tags", "state", "rounds", "clients", *(AXIS_LABELS[quality] for quality in QUALITIES), "protocol",
    "seconds", "last written",
)  # fmt: skip
_MOST_TEXT = 200
_NOTHING = Cell("", "")


@dataclass(frozen=True)
class Row:
    """A run, or a study, as the page shows it."""

    link: str
    """Path of its report, relative to the page; empty if it has none."""
    cells: tuple[Cell, ...]


def write_runs_page(folder: Path) -> Path:
    """Write FOLDER/runs.html, with every run and every study below the folder; returns its path.

    Raises:
        InputError: there is none.
    """
    runs, studies = runs_below(folder)
    if not runs and not studies:
        raise InputError(f"{folder}: holds no run and no study; name a run, a study, or a folder of them")
    damaged: dict[str, str] = {}
    rows = []
    for run in runs:
        try:
            rows.append(_run_row(run, folder))
        except (InputError, RunError, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            damaged[_name(run, folder)] = _reason(error, run)
    content = {
        "name": folder.resolve().name, "heads": _HEADS, "rows": rows, "damaged": damaged,
        "studies": [_study_row(study, folder) for study in studies],
        "written": _date(datetime.now(UTC).timestamp()).text,
    }  # fmt: skip
    write_page(folder / PAGE, "runs.html.j2", content, {})
    return folder / PAGE


def _reason(error: Exception, run: Path) -> str:
    """The error of a run in one line, which names files relative to the folder."""
    what = f"workload.yaml lacks {error}" if isinstance(error, KeyError) else str(error).replace(f"{run}{os.sep}", "")
    return one_line(what)[:_MOST_TEXT] or type(error).__name__


def runs_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """The runs and studies at or below a folder, without the runs of studies and hidden folders."""
    runs, studies = [], []
    for at, folders, files in os.walk(folder):
        path = Path(at)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "study.yaml" in files and "base.yaml" in files:
            studies.append(path)
        elif "workload.yaml" in files and {"manifest.parquet", "checkpoints"} & {*files, *folders}:
            runs.append(path)
        else:
            continue
        folders.clear()
    return runs, studies


def _run_row(run: Path, folder: Path) -> Row:
    workload = read_yaml(run / "workload.yaml")
    training = workload.get("training", {})
    ledger = run / "rounds.parquet"
    rounds = read_table(ledger) if ledger.exists() else pd.DataFrame({"round": [], "seconds": []})
    complete = complete_rounds(run)
    scores = _scores(run, complete)
    planned = int(training["rounds"])
    early = _stopped_early(training, rounds, complete)
    state = state_of(run, trained=planned in complete or early, early=early)
    quality = (_number(mean_over_sites(scores, name) if len(scores) else math.nan, name) for name in QUALITIES)
    protocol = str(scores["protocol"].iloc[0]) if len(scores) else ""
    tags = ", ".join(map(str, workload.get("tags", ())))
    seconds = float(rounds["seconds"].sum())
    cells = (
        _text(_name(run, folder)), _text(workload["algorithm"]["name"]), _text(tags), _text(state),
        Cell(f"{len(rounds)} of {planned}", float(len(rounds))), _clients(run, workload), *quality, _text(protocol),
        Cell(f"{seconds:.3g}" if seconds < 1000 else f"{seconds:.0f}", seconds),
        _date((ledger if ledger.exists() else run / "workload.yaml").stat().st_mtime),
    )  # fmt: skip
    return Row(_link(run, folder), cells)


def _study_row(study: Path, folder: Path) -> Row:
    """Name, kind and number of finished points; if something cannot be read, the error instead."""
    try:
        content = read_yaml(study / "study.yaml")
        results = study / "results.parquet"
        count = len(read_table(results, ["seed"])) if results.exists() else 0
        points = Cell(str(count), float(count))
        cells = (_text(_name(study, folder)), _text(content.get("name", "")), _text(content.get("kind", "")), points)
    except (InputError, RunError) as error:
        cells = (_text(_name(study, folder)), _text(f"damaged: {error}"), _NOTHING, _NOTHING)
    return Row(_link(study, folder), cells)


def _scores(run: Path, complete: list[int]) -> pd.DataFrame:
    """The rows of evaluation.parquet of the best round's test split; none before they exist."""
    path = run / "evaluation.parquet"
    if not complete or not path.exists():
        return pd.DataFrame()
    best = read_state(run, complete[-1])["best_round"]
    table = read_table(path)
    return table[(table["round"] == (best if best in complete else complete[-1])) & (table["split"] == "test")]


def _stopped_early(training: dict[str, Any], rounds: pd.DataFrame, complete: list[int]) -> bool:
    given = training.get("early_stopping")
    if not given or not complete:
        return False
    rule = EarlyStopping.model_validate(given)
    done = rounds[rounds["round"] <= complete[-1]]
    return bool(rule.verdict(zip(done["round"], done[rule.metric], strict=True)))


def _clients(run: Path, workload: Mapping[str, Any]) -> Cell:
    """The number of clients, most of which may have no row in the ledger; nothing before it has any."""
    path, federation = run / "clients.parquet", workload["federation"]
    if not path.exists():
        return _NOTHING
    sites = sum(site.get("count", 1) for site in federation["sites"] if not site.get("unseen"))
    pooled = set(read_table(path, ["client"])["client"]) == {POOLED}
    count = 1 if pooled else federation.get("clients") or sites
    return Cell(str(count), float(count))


def _number(value: float, quality: str) -> Cell:
    return Cell(number(value, quality), value) if math.isfinite(value) else _NOTHING


def _date(seconds: float) -> Cell:
    """In local time, to the minute."""
    return Cell(f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M}", seconds)


def _text(value: object) -> Cell:
    text = one_line(str(value))[:_MOST_TEXT]
    return Cell(text, text)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path != folder else path.resolve().name


def _link(path: Path, folder: Path) -> str:
    page = path / "report.html"
    return quote(f"./{page.relative_to(folder).as_posix()}") if page.is_file() else ""
