"""A tiny study of two phantom sites and three methods, finished once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedsim.study.runner import StudyResult, run_study
from fedsim.study.study import StudyPlan, load_study
from fedsim.workload.reading import write_yaml
from tests.conftest import site

PlanOf = Callable[..., StudyPlan]
SEARCH = {"seed": 9, "sampler": "random", "trials": 30, "space": {"training.lr": {"low": 1e-4, "high": 1e-2}}}
"""What tune says in a study that searches."""


def study_content(**keys: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "workload": "small.yaml",
        "set": {"training.rounds": 2, "engine.backend": "serial"},
        "seeds": [1, 2],
        "reference": "fedmri",
        "methods": {"single": None, "fedavg": {}, "fedmri": {"algorithm.beta": 1}},
        **keys,
    }


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base workload; data are imported once."""
    folder = tmp_path_factory.mktemp("study")
    base = {
        "name": "small",
        "federation": {
            "cache": str(folder / "cache"),
            "matrix": [32, 32],
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            "sites": [site("A", "t1"), site("B", "flair", mask={"kind": "radial", "acceleration": 3})],
        },
        "model": {"channels": 2, "pools": 2},
        "training": {"batch_size": 3, "lr": 1e-3},
        "engine": {"keep_last": 1},
    }
    (folder / "small.yaml").write_text(write_yaml(base))
    return folder


@pytest.fixture
def plan_of(home: Path, tmp_path: Path) -> Callable[..., StudyPlan]:
    """Makes the plan of the tiny study with other keys; `overrides` are what --set would say."""

    def make(*overrides: str, **keys: Any) -> StudyPlan:
        path = tmp_path / "tiny.yaml"
        path.write_text(write_yaml(study_content(workload=str(home / "small.yaml"), **keys)))
        return load_study(path, overrides)

    return make


@pytest.fixture
def run(ray_session: None) -> Callable[..., StudyResult]:
    def run(plan: StudyPlan, folder: Path, **more: Any) -> StudyResult:
        return run_study(plan, folder, **more)

    return run


@pytest.fixture(scope="session")
def finished(home: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study; read it, do not write to it."""
    (home / "tiny.yaml").write_text(write_yaml(study_content()))
    folder = tmp_path_factory.mktemp("finished") / "tiny"
    assert not run_study(load_study(home / "tiny.yaml"), folder).failed
    return folder


def results(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "volumes.parquet").drop(columns="seconds")


def assert_same_results(one: Path, two: Path) -> None:
    pd.testing.assert_frame_equal(results(one), results(two), check_exact=True)
    pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "curves.parquet") for folder in (one, two)))
