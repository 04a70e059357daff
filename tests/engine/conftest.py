"""A small federation that every engine test runs: three phantom hospitals, four clients, a network of a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from tests.conftest import three_sites, unplaced


def written(folder: Path, cache: Path) -> Path:
    """The workload's file."""
    content = {
        "name": "small",
        "seed": 3,
        "federation": {
            "cache": str(cache),
            "clients": 4,
            "matrix": [32, 32],
            "sites": three_sites(slices=3, size=48),
        },
        "model": {"domain": "dual", "channels": 2, "pools": 2},
        "algorithm": {"name": "fedmri", "beta": 1},
        "training": {"rounds": 3, "batch_size": 3, "lr": 1e-3, "lr_step": 2},
        "engine": {"backend": "serial", "keep_last": 9},
    }
    path = folder / "small.yaml"
    path.write_text(write_yaml(content))
    return path


@pytest.fixture
def workload(tmp_path: Path, cache: Path) -> Callable[..., Workload]:
    """Makes the workload with overrides KEY=VALUE."""
    return lambda *overrides: load_workload(written(tmp_path, cache), overrides)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    """The workload's run in one process, undisturbed. Read it, do not write to it."""
    folder = tmp_path_factory.mktemp("whole")
    return run(load_workload(written(folder, cache)), folder / "run")


@pytest.fixture
def simulate(workload: Callable[..., Workload], tmp_path: Path) -> Callable[..., Run]:
    """Runs the workload with overrides into a folder of its own."""
    count = iter(range(100))

    def simulate(*overrides: str, **keys: Any) -> Run:
        return run(workload(*overrides), **{"out": tmp_path / f"run-{next(count)}", **keys})

    return simulate


def tensors(run: Run) -> dict[str, bytes]:
    """Every file of every checkpoint, byte for byte."""
    return {str(p.relative_to(run.path)): p.read_bytes() for p in sorted(run.path.glob("checkpoints/**/*.safetensors"))}


def assert_same(one: Run, other: Run) -> None:
    """The same bits: every tensor, every metric, every evaluated volume."""
    assert tensors(one)
    assert tensors(one).keys() == tensors(other).keys()
    assert [name for name, content in tensors(one).items() if tensors(other)[name] != content] == []
    for table in ("rounds", "clients", "evaluation", "manifest"):
        ours, theirs = (unplaced(getattr(r, table)) for r in (one, other))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def noted(run: Run) -> list[tuple[int, str, str, str]]:
    """Round, client, kind and action of each failure."""
    frame = pd.read_parquet(run.path / "failures.parquet")
    return list(frame[["round", "client", "kind", "action"]].itertuples(index=False, name=None))


def load(run: Run, round_: int, name: str) -> dict[str, np.ndarray]:
    return load_file(run.path / f"checkpoints/round-{round_:04d}/{name}.safetensors")
