"""What tests of all folders share."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from _pytest.mark import ParameterSet

from fedsim.cli import app as cli
from fedsim.engine.place.cores import cores_here
from fedsim.engine.ray.backend import RayBackend
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.engine import Engine
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload

Fedsim = Callable[..., tuple[int, str, str]]
COMMAND = (sys.executable, "-c", "from fedsim.cli import main; main()")
"""`fedsim` in another process, whatever the PATH."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_PLACED = r"^(node|pid|slots|seconds|(driver_)?memory_bytes|\w+_sum_bytes|\w+_seconds)$"


def pytest_xdist_auto_num_workers() -> int:
    """One worker per core that this job may use."""
    return int(cores_here())


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what uses a Ray of ours."""
    if {"ray_session", "brought_up"} & {*getattr(item, "fixturenames", ())}:
        item.add_marker("ray")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let no test start Ray that is not marked `ray` or `long`, not even in a process that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        if not (item.get_closest_marker("ray") or item.get_closest_marker("long")):
            patch.setenv("RAY_TMPDIR", "/a test that is not marked ray")
        return (yield)


def unplaced(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a run's table that do not depend on where and when something was computed."""
    return table.drop(columns=table.filter(regex=_PLACED).columns)


def every(step: int, cases: Iterable[tuple[Any, ...]]) -> list[ParameterSet]:
    """The cases as parameters; the quick run has the first and every `step`-th after it."""
    return [pytest.param(*case, marks=[pytest.mark.slow] if number % step else []) for number, case in enumerate(cases)]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """What a test computes beside a run, it computes as a client does, whichever tests come before it."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def forget(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """Makes this process as a new one, in which no module of a test's folders is loaded; so it is after each test."""
    ours = str(tmp_path_factory.getbasetemp())

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if str(vars(module).get("__file__")).startswith(ours):
                del sys.modules[name]

    yield forget
    forget()


@pytest.fixture(scope="session")
def real_data() -> Path:
    root = Path(os.environ.get("FEDSIM_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set FEDSIM_REAL_DATA to a folder laid out like it")
    return root


@pytest.fixture(scope="session")
def real_raw() -> Path:
    root = Path(os.environ.get("FEDSIM_REAL_RAW", Path(__file__).parents[2] / "shared" / "raw"))
    if not (root / "brain-8coil.cfl").is_file():
        pytest.skip(f"no raw data at {root}; set FEDSIM_REAL_RAW to a folder with brain-8coil.cfl and .hdr")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, headless; closed after a file, as no other event loop can run in this process beside it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests that simulate on it; each brings up its own actors."""
    backend = RayBackend(Engine())
    yield
    backend.close()


@pytest.fixture
def fedsim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Fedsim:
    """Runs the command in this process and in an empty folder; returns exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def fedsim(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedsim", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return fedsim


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def site(
    name: str,
    contrast: str,
    kind: str = "radial",
    *,
    subjects: int = 4,
    slices: int = 3,
    size: int = 48,
    **more: object,
) -> dict[str, Any]:
    """A phantom site of a workload, with a mask of that kind."""
    source = {"format": "phantom", "subjects": subjects, "slices": slices, "size": size, "contrast": contrast}
    return {"name": name, "source": source, "mask": {"kind": kind, "acceleration": 3}, **more}


def three_sites(slices: int, size: int) -> list[dict[str, Any]]:
    """Three sites of six subjects; the second has a matrix and a learning rate of its own."""
    shape = {"subjects": 6, "slices": slices, "size": size}
    return [
        site("A", "t1", "equispaced", **shape),
        site("B", "t2", training={"lr": 2e-3}, matrix=[size, size], **shape),
        site("C", "pd", "gaussian2d", **shape),
    ]


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
