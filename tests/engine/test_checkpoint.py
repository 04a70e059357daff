from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.engine import checkpoint
from fedsim.engine.rundir import Run

from .conftest import assert_same

Simulate = Callable[..., Run]


def test_many_clients_share_files_and_resume_alike(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_OWN_FILE_UP_TO", 3)
    monkeypatch.setattr(checkpoint, "_BLOCK", 3)
    whole = simulate()
    clients = whole.path / "checkpoints" / "round-0003" / "clients"
    assert sorted(p.name for p in clients.iterdir()) == ["block-0000.safetensors", "block-0001.safetensors"]
    simulate("training.rounds=2", out=tmp_path / "part")
    (tmp_path / "part" / "evaluation.parquet").unlink()
    assert_same(whole, simulate(out=tmp_path / "part", resume=True))
    assert whole.model("C")


def test_only_the_last_and_the_best_are_kept(simulate: Simulate) -> None:
    run = simulate("training.rounds=5", "engine.keep_last=1")
    best = int(run.rounds.loc[run.rounds["psnr"].idxmax(), "round"])
    assert checkpoint.complete_rounds(run.path) == sorted({best, 5})
    assert run.round("best") == best
    assert run.round("last") == 5


def test_an_unfinished_checkpoint_does_not_count(simulate: Simulate) -> None:
    run = simulate()
    (checkpoint.folder(run.path, 3) / "state.json").unlink()
    assert checkpoint.complete_rounds(run.path) == [1, 2]
