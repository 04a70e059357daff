"""Which points of a study have ended, judged from its folder."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fedsim.analysis.scores import scores
from fedsim.engine.record.ending import is_trained
from fedsim.engine.record.ledger import read_table, write_table
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.study.study import Point

_FAILED = "failed.parquet"


def is_finished(point: Point, folder: Path) -> bool:
    """Whether a point has all its rounds and the evaluation of its best one."""
    path = folder / point.folder
    if not (path / "evaluation.parquet").exists():  # which spares opening a run that is under way
        return False
    return bool(complete_rounds(path)) and is_trained(Run(path)) and len(scores(Run(path), point.part)) > 0


def read_failures(folder: Path) -> dict[str, str]:
    """The error of each failed point, by its label."""
    path = folder / _FAILED
    return dict(read_table(path).itertuples(index=False, name=None)) if path.exists() else {}


def write_failures(folder: Path, failures: Mapping[str, str]) -> None:
    """Write the error of each failed point to failed.parquet."""
    write_table(folder / _FAILED, pd.DataFrame(list(failures.items()), columns=["point", "error"]))
