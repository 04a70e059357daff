"""fedsim checkpoints lists what a run can be resumed from, and what that takes."""

import shutil
from pathlib import Path

import pytest

from fedsim.engine.record.run_directory import Run
from fedsim.engine.state import checkpoint
from tests.conftest import Fedsim


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsim.cli.checkpoints.out.width", 120)


def test_rounds_and_sizes_are_listed(fedsim: Fedsim, finished: Run, tmp_path: Path) -> None:
    run = shutil.copytree(finished.path, tmp_path / "run")
    state = checkpoint.folder(run, 1) / "state.json"
    state.write_text(state.read_text().replace('"round": 1', '"round": 2'))
    status, out, err = fedsim("checkpoints", run)
    assert (status, err) == (0, "")
    table, _, caption = out.partition("on disk")
    rows = {words[0]: words[1:] for line in table.splitlines()[:-1] if (words := line.split()) and words[0].isdecimal()}
    assert rows.keys() == {"1", "2"}
    assert " ".join(rows["1"][:4]) == "state.json is damaged 7"
    assert rows["2"][:2] == ["4", "7"]
    best = str(finished.round("best"))
    assert [number for number, row in rows.items() if row[-1] == "best"] == [best]
    assert "above 256 clients, those that have not trained are not stored" in " ".join(caption.split())


def test_what_has_no_checkpoint_is_said_in_one_line(fedsim: Fedsim, finished: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished.path / "workload.yaml", run)
    for folder, reason in {run: "has no complete checkpoint yet", tmp_path / "none": "is not a run"}.items():
        status, out, err = fedsim("checkpoints", folder)
        assert (status, out) == (2, "")
        assert err.startswith(f"fedsim: {folder}: {reason}")
        assert err.count("\n") == 1
