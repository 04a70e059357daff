"""A small finished run that the tests of figures and reports share: three phantom sites, four clients, two rounds."""

from collections.abc import Callable
from typing import Any

import pytest

from fedsim.config import Workload
from fedsim.engine.rundir import Run
from fedsim.engine.simulation import run
from fedsim.workload import load_workload, write_yaml


def site(name: str, contrast: str, **more: object) -> dict[str, Any]:
    source = {"format": "phantom", "subjects": 4, "slices": 3, "size": 48, "contrast": contrast}
    return {"name": name, "source": source, "mask": {"kind": "radial", "acceleration": 3}, **more}


@pytest.fixture(scope="session")
def make_workload(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Workload]:
    """Makes the workload with overrides KEY=VALUE."""
    folder = tmp_path_factory.mktemp("study")
    one_subject = {"format": "phantom", "subjects": 1, "slices": 9, "size": 48}
    blocks = {"by": "block", "train": 0.6, "val": 0.2, "test": 0.2}
    content = {
        "name": "small",
        "seed": 5,
        "federation": {
            "cache": str(folder / "cache"),
            "clients": 4,
            "matrix": [32, 32],
            "sites": [
                site("A", "t1"),
                site("B", "t2", split={"train": 0.5, "val": 0.5, "test": 0}),
                {"name": "W", "source": one_subject, "split": blocks, "matrix": [48, 32]},
            ],
        },
        "model": {"channels": 4, "pools": 2},
        "algorithm": {"name": "fedmri", "beta": 1},
        "training": {"rounds": 2, "batch_size": 3, "lr": 1e-3},
        "engine": {"backend": "serial"},
    }
    (folder / "small.yaml").write_text(write_yaml(content))
    return lambda *overrides: load_workload(folder / "small.yaml", overrides)


@pytest.fixture(scope="session")
def finished(make_workload: Callable[..., Workload], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Read it, do not write to it; a report may be written over and over."""
    return run(make_workload(), tmp_path_factory.mktemp("finished") / "run")
