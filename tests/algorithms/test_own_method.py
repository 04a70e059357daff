"""A user's own method: the example of docs/methods.md as it stands there, and what can be wrong with one."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsim.cli import app as cli
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, read_yaml, write_yaml
from fedsim.workload.schema import Workload

from .conftest import assert_equal, assert_same_run, bench, load, small, state
from .loops.averaging import isolated

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def example(language: str) -> str:
    """The code block of the section "Write your own"."""
    section = PAGE.read_text(encoding="utf-8").partition("## Write your own")[2]
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    return str(block)


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """The example as its reader would have it: a workload, and the method's file beside it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "median.py").write_text(example("python"))
    (folder / "example.yaml").write_text(example("yaml"))
    settings = read_yaml(folder / "example.yaml")
    (folder / "workload.yaml").write_text(write_yaml({**small(cache), **settings}))
    return folder


def test_the_example_is_short(folder: Path) -> None:
    assert len((folder / "median.py").read_text().splitlines()) <= 30


@pytest.mark.slow
def test_the_example_does_what_it_says(folder: Path, tmp_path: Path) -> None:
    """One round by hand: half the way from the start to the median of the clients' networks."""
    workload = load_workload(folder / "workload.yaml", ["training.rounds=1"])
    b = bench(workload)
    start, ends = state(b.network()), list(isolated(b).values())
    shared = load(run(workload, tmp_path / "run"), 1, "shared")
    assert max(np.abs(shared[name] - before.numpy()).max() for name, before in start.items()) > 1e-2
    for name, before in start.items():
        median = np.median([end[name].numpy() for end in ends], axis=0)
        np.testing.assert_allclose(shared[name], (before.numpy() + median) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_the_example_runs_on_ray_and_outlives_its_file(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    forget: Callable[[], None],
) -> None:
    serial = run(load_workload(folder / "workload.yaml"), tmp_path / "serial")
    packed = ["engine.backend=ray", "engine.clients_per_actor=2"]
    assert_same_run(serial, run(load_workload(folder / "workload.yaml", packed), tmp_path / "ray"))
    before = {name: p.detach().numpy() for name, p in serial.model("B").named_parameters()}

    (folder / "median.py").unlink()
    forget()
    monkeypatch.chdir(folder)
    reopened = Run(tmp_path / "serial")
    assert reopened.workload.algorithm.model_dump() == {
        "name": "median:Median", "weighting": "uniform", "step": 0.5,
    }  # fmt: skip
    assert_equal(before, {name: p.detach().numpy() for name, p in reopened.model("B").named_parameters()})

    forget()
    monkeypatch.setattr(sys, "argv", ["fedsim", "evaluate", str(tmp_path / "serial"), "--split", "val"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = " ".join(capsys.readouterr().err.split())
    assert not exit_.value.code
    assert "INFO runs the code in " in said
    assert set(reopened.evaluation["split"]) == {"val", "test"}
    assert set(reopened.evaluation["algorithm"]) == {"median:Median"}


@pytest.mark.slow
def test_a_stopped_run_goes_on_from_its_own_copy(folder: Path, tmp_path: Path, forget: Callable[[], None]) -> None:
    whole = run(load_workload(folder / "workload.yaml"), tmp_path / "whole")
    asked = iter([False, False, True])
    run(load_workload(folder / "workload.yaml"), tmp_path / "part", stop=lambda: next(asked))
    (folder / "median.py").unlink()
    forget()
    copy = tmp_path / "part" / "workload.yaml"
    assert_same_run(whole, run(load_workload(copy), tmp_path / "part", resume=True))


def test_a_run_keeps_the_method_that_it_began_with(folder: Path, tmp_path: Path, forget: Callable[[], None]) -> None:
    run(load_workload(folder / "workload.yaml", ["training.rounds=1"]), tmp_path / "run")
    text = (folder / "median.py").read_text()
    (folder / "median.py").write_text(text.replace("np.median", "np.max"))
    forget()
    with pytest.raises(InputError, match=r"median\.py: is not what it was when"):
        run(load_workload(folder / "workload.yaml"), tmp_path / "run", resume=True)


BAD_METHODS = [
    ("nowhere:Median", "nowhere cannot be imported (ModuleNotFoundError"),
    ("nowhere.deeper:Median", "nowhere.deeper cannot be imported (ModuleNotFoundError"),
    ("median:Mean", "median has no class Mean derived from fedsim.algorithms.base.Algorithm"),
    ("other:Plain", "other has no class Plain derived from"),
    ("other:number", "other has no class number derived from"),
    ("raises:Method", "raises.py cannot be imported (ValueError: this way or that)"),
    ("leaves:Method", "leaves.py cannot be imported (SystemExit: 3)"),
    ("broken:Method", "broken.py cannot be imported (SyntaxError"),
    ("median:", "unknown"),
    ("two words:Median", "must be a known method, or module:Class for one of your own"),
    ("median", "algorithm.name: unknown 'median'; known: fedmri"),
]


@pytest.mark.parametrize(("name", "message"), BAD_METHODS, ids=[name for name, _ in BAD_METHODS])
def test_a_wrong_name_gets_one_line(folder: Path, name: str, message: str) -> None:
    (folder / "other.py").write_text("class Plain:\n    pass\n\n\nnumber = 3\n")
    (folder / "raises.py").write_text("raise ValueError('this way\\nor that')\n")
    (folder / "leaves.py").write_text("import sys\n\nsys.exit(3)\n")
    (folder / "broken.py").write_text("class Method(\n")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_workload(folder / "workload.yaml", [f"algorithm.name={name}"])
    assert "\n" not in str(error.value)
    assert "algorithm" in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("algorithm.stride=2", "algorithm.stride: unknown key"),
        ("algorithm.step=2", "algorithm.step: Input should be less"),
        ("algorithm.step=big", "algorithm.step: must be a number, not 'big'"),
    ],
)
def test_a_wrong_key_of_an_own_method_gets_one_line(folder: Path, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_workload(folder / "workload.yaml", [setting])
    assert "\n" not in str(error.value)


def test_the_file_beside_the_workload_wins_over_one_loaded_before(folder: Path, tmp_path: Path) -> None:
    """Two workloads may each have a median.py of their own."""
    first = load_workload(folder / "workload.yaml").algorithm
    other = tmp_path / "other"
    other.mkdir()
    (other / "median.py").write_text(example("python").replace("step: float", "stride: float"))
    (other / "workload.yaml").write_text((folder / "workload.yaml").read_text().replace("  step:", "  stride:"))
    second = load_workload(other / "workload.yaml").algorithm
    assert set(type(second).model_fields) ^ set(type(first).model_fields) == {"step", "stride"}


def test_an_own_method_can_be_used_from_python(workload: Callable[..., Workload], tmp_path: Path) -> None:
    (tmp_path / "median.py").write_text(example("python"))
    settled = workload("median:Median", "algorithm.step=0.25").settled()
    assert settled.algorithm.model_dump()["step"] == 0.25
