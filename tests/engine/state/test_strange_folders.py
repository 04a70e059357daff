"""Folders beside checkpoints, checkpoints under other names, and what state.json may not say."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import DamagedError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state import checkpoint
from tests.engine.conftest import assert_same

Simulate = Callable[..., Run]


def test_a_checkpoint_has_its_own_name_and_other_folders_are_left_alone(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run" / "checkpoints", tmp_path / "elsewhere"
    for name in ("round-0002", "round-10000", "round-7", "round-00003", "round-0000", "round-0004-old", "round-٠٠٠١"):
        (folder / name).mkdir(parents=True)
        (folder / name / "state.json").touch()
    assert checkpoint.complete_rounds(tmp_path / "run") == [2, 10000]
    for unfinished in ("round-0005", ".round-0006.part", "round-notes"):
        (folder / unfinished).mkdir()
    (folder / "round-0008").symlink_to(elsewhere, target_is_directory=True)
    (folder / "round-notes.txt").touch()
    shutil.move(folder / "round-0002", elsewhere)
    (folder / "round-0002").symlink_to(elsewhere)
    (elsewhere / "shared.safetensors").touch()
    checkpoint.prune(tmp_path / "run", keep_last=1, best=None, passing=[])
    checkpoint.sweep(tmp_path / "run")
    left = {"round-10000", "round-7", "round-00003", "round-0000", "round-0004-old", "round-٠٠٠١", "round-notes"}
    assert {path.name for path in folder.iterdir()} == {*left, "round-notes.txt"}
    assert {path.name for path in elsewhere.iterdir()} == {"state.json", "shared.safetensors"}, "a link, not its target"


@pytest.mark.slow
def test_a_checkpoint_under_another_rounds_name_is_none(simulate: Simulate, whole: Run, tmp_path: Path) -> None:
    """Or a copy would give the clients of one round and the server of another."""
    run = Run(shutil.copytree(whole.path, tmp_path / "run"))
    shutil.rmtree(checkpoint.folder(run.path, 3))
    shutil.copytree(checkpoint.folder(run.path, 2), checkpoint.folder(run.path, 3))
    with pytest.raises(DamagedError, match=r"round-0003/state.json: its folder holds the checkpoint of round 2"):
        run.learner("B", 3)
    (run.path / "evaluation.parquet").unlink()
    assert_same(whole, simulate(out=tmp_path / "run", resume=True))


def test_what_state_json_may_not_say_is_found(tmp_path: Path) -> None:
    path = checkpoint.folder(tmp_path, 1) / "state.json"
    path.parent.mkdir(parents=True)
    path.write_text("[" * 100_000)
    with pytest.raises(DamagedError, match=r"state.json: is damaged"):
        checkpoint.read_state(tmp_path, 1)
    for name in ("../../x.safetensors", "/x.safetensors", "x.json", ".safetensors", ""):
        with pytest.raises(DamagedError, match="which no checkpoint has"):
            checkpoint.segments_of({"round": 1, "segments": {name: {"header": "", "clients": {}}}})
