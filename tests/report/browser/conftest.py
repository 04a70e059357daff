"""The reports that a browser looks at."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.engine.record.run_directory import Run
from fedsim.report.count_figures import count_figures
from fedsim.report.figures import save_figure
from fedsim.report.report import write_report
from fedsim.report.study_report import write_study_report
from fedsim.report.study_tables import study_tables
from fedsim.report.viewer import stacks_of


@pytest.fixture(scope="session")
def run_report(finished: Run) -> Path:
    return write_report(finished.path)


@pytest.fixture(scope="session")
def study_report(finished: Run, made_study: Callable[..., Path]) -> Path:
    """Of a study with images of two methods; its figures are drawn from its tables."""
    study = study_tables(made_study("client-count"))
    drawn = [
        save_figure(figure, study.folder / f"{name}.png") for name, figure in count_figures(study.points, "fedmri")
    ]
    return write_study_report(study, drawn, stacks_of({"fedavg": finished, "fedmri": finished}), [])
