"""`--overwrite` replaces a run or a study, and deletes nothing else, nor before its successor has begun."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.claim import Claim
from fedsim.engine.record.overwrite import overwriting
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, write_yaml

Fedsim = Callable[..., tuple[int, str, str]]
ONE = ("--set", "training.rounds=1")


@pytest.fixture
def old(workload: Path, tmp_path: Path) -> Path:
    return run(load_workload(workload, ["training.rounds=1"]), tmp_path / "a run").path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_is_replaced(fedsim: Fedsim, workload: Path, old: Path) -> None:
    assert fedsim("run", workload, *ONE, "--set", "seed=9", "--out", old, "--overwrite")[0] == 0
    assert Run(old).workload.seed == 9
    assert not list(old.parent.glob(".*replaced"))


@pytest.mark.long
@pytest.mark.timeout(300)
def test_what_trackers_wrote_is_replaced_too(fedsim: Fedsim, workload: Path) -> None:
    trackers = ("--set", "trackers=[tensorboard, mlflow, wandb]")
    study = {"name": "s", "kind": "compare", "workload": str(workload), "methods": {"fedavg": {}}, "seeds": [1]}
    Path("s.yaml").write_text(
        write_yaml({**study, "set": {"training.rounds": 1, "trackers": ["tensorboard", "mlflow", "wandb"]}})
    )
    for again in ((), ("--overwrite",)):
        assert fedsim("run", workload, *ONE, *trackers, "--out", "run", *again)[0] == 0
        assert fedsim("study", "s.yaml", "--out", "study", *again)[0] == 0
    assert {path.name for path in Path("run").iterdir()} > {"trackers", "wandb"}
    assert {path.name for path in Path("study").iterdir()} > {"trackers", "mlflow.db"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", [("--set", "federation.clients=99"), ("--set", "faults=[{kind: kill, round: 1}]"), ("--resume",)]
)
def test_what_fails_before_it_has_begun_leaves_the_old_one(
    fedsim: Fedsim, workload: Path, old: Path, wrong: tuple[str, ...]
) -> None:
    before = contents(old)
    assert fedsim("run", workload, *ONE, *wrong, "--out", old, "--overwrite")[0] == 2
    assert contents(old) == before
    assert not list(old.parent.glob(".*replaced"))


def test_a_study_is_replaced(fedsim: Fedsim, workload: Path) -> None:
    study = {"name": "s", "kind": "compare", "workload": str(workload), "methods": {"fedavg": {}}, "seeds": [1]}
    Path("s.yaml").write_text(write_yaml({**study, "set": {"training.rounds": 1}}))
    Path("out").mkdir()
    (Path("out") / "study.yaml").write_text(write_yaml({**study, "name": "other", "workload": "base.yaml"}))
    assert fedsim("study", "s.yaml", "--out", "out")[0] == 2, "it is another study"
    with overwriting(Path("out")) as drop:
        assert not Path("out").exists()
        drop()
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("foreign", ["notes.txt", "data/scan.nii", "code.py"])
def test_nothing_that_a_run_did_not_write_is_deleted(old: Path, foreign: str) -> None:
    (old / foreign).parent.mkdir(exist_ok=True)
    (old / foreign).write_text("mine")
    before = contents(old)
    with pytest.raises(InputError, match=f"{foreign.partition('/')[0]} was not written by a run"), overwriting(old):
        pass
    assert contents(old) == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is not the folder of a run or a study"),
        ({"scan.nii": ""}, "is not the folder of a run or a study"),
        ({"workload.yaml": "name: mine\n"}, "was not written by a run or a study"),
        ({"study.yaml": "workload: mine.yaml\n"}, "was not written by a run or a study"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(InputError, match=message), overwriting(folder):
        pass
    assert contents(folder) == {name: text.encode() for name, text in files.items()}


def test_neither_a_link_nor_a_run_that_goes_on_is_replaced(old: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(old)
    with pytest.raises(InputError, match="is not the folder of a run"), overwriting(tmp_path / "link"):
        pass
    with Claim(old), pytest.raises(InputError, match="is writing there"), overwriting(old):
        pass
    assert (old / "workload.yaml").exists()
