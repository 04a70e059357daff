"""A checkpoint is the whole truth, or is known not to be."""

import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fedsim.core.errors import DamagedError, InputError, RunError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state import checkpoint, segments
from fedsim.workload.schema import Workload
from tests.engine.conftest import assert_same

Simulate = Callable[..., Run]
KILLED_AT = """
import os, signal, sys
def end(event, arguments):
    if event == sys.argv[1] and str(arguments[0]).endswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(end)
from pathlib import Path
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload
run(load_workload(Path(sys.argv[3])), sys.argv[4])
"""
IN_BLOCKS = {"_OWN_FILE_UP_TO": 3, "_BLOCK": 3}


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four clients as if they were many: three share a file."""
    for name, value in IN_BLOCKS.items():
        monkeypatch.setattr(segments, name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("in_blocks")
def test_many_clients_share_files_and_resume_alike(simulate: Simulate, tmp_path: Path) -> None:
    whole = simulate()
    clients = whole.path / "checkpoints" / "round-0003" / "clients"
    assert sorted(p.name for p in clients.iterdir()) == ["block-0003-0000.safetensors", "block-0003-0001.safetensors"]
    simulate("training.rounds=2", out=tmp_path / "part")
    (tmp_path / "part" / "evaluation.parquet").unlink()
    assert_same(whole, simulate(out=tmp_path / "part", resume=True))
    assert whole.model("C")


@pytest.mark.slow
def test_only_the_last_and_the_best_are_kept(simulate: Simulate) -> None:
    run = simulate("training.rounds=5", "engine.keep_last=1")
    best = int(run.rounds.loc[run.rounds["psnr"].idxmax(), "round"])
    assert checkpoint.complete_rounds(run.path) == sorted({best, 5})
    assert run.round("best") == best
    assert run.round("last") == 5
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == sorted(
        {f"round-{best:04d}", "round-0005"}
    )


@pytest.mark.slow
def test_an_unfinished_checkpoint_does_not_count(simulate: Simulate) -> None:
    run = simulate()
    (checkpoint.folder(run.path, 3) / "state.json").unlink()
    assert checkpoint.complete_rounds(run.path) == [1, 2]


@pytest.mark.slow
def test_it_says_what_made_it(simulate: Simulate, whole: Run) -> None:
    state = checkpoint.read_state(whole.path, 3)
    assert state["round"] == 3
    assert state["workload"]["seed"] == 3
    assert {"torch", "numpy", "processor"} <= state["workload"]["provenance"].keys()
    assert state["clients"] == ["A.1", "A.2", "B", "C"]
    assert state["best_psnr"] == whole.rounds["psnr"].max()


def read_everything(run: Run, round_: int) -> None:
    for client in run.clients["client"].unique():
        run.learner(client, round_)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [False, True])
def test_a_flipped_byte_in_any_file_is_found(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blocks: bool
) -> None:
    """Each file, each of many places; also cut off, longer, empty, gone."""
    if blocks:
        for name, value in IN_BLOCKS.items():
            monkeypatch.setattr(segments, name, value)
    run = simulate("training.rounds=2", "metrics.every=0")
    read_everything(run, 2)
    folder = checkpoint.folder(run.path, 2)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 3 + (2 if blocks else 4)
    for file in files:
        good = file.read_bytes()
        places = {
            0,
            5,
            8,
            9,
            len(good) // 3,
            len(good) // 2,
            len(good) - 2,
            int.from_bytes(good[:8], "little") % len(good),
        }
        bad = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in sorted(places)]
        for content in (*bad, good[:-1], good[: len(good) // 2], b""):
            file.write_bytes(content)
            with pytest.raises(DamagedError, match=f"{file.name}: is damaged"):
                read_everything(run, 2)
        file.unlink()
        with pytest.raises(InputError):
            read_everything(run, 2)
        file.write_bytes(good)
    read_everything(run, 2)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["state.json", "shared.safetensors", "server.safetensors", "clients/B.safetensors"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(
    simulate: Simulate, whole: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    run = Run(shutil.copytree(whole.path, tmp_path / "run"))
    (run.path / "evaluation.parquet").unlink()
    damaged = checkpoint.folder(run.path, 3) / file
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"???")
    logging.getLogger("fedsim").propagate = True
    assert_same(whole, simulate(out=tmp_path / "run", resume=True))
    assert f"{Path(file).name}: is damaged" in caplog.text
    assert "round 3 is set aside, and the checkpoint before it used" in caplog.text
    assert not list(run.path.rglob("state-damaged.json")), "it was made again"


@pytest.mark.slow
def test_without_a_whole_checkpoint_the_run_starts_over(simulate: Simulate, whole: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(whole.path, tmp_path / "run"))
    (run.path / "evaluation.parquet").unlink()
    for file in run.path.glob("checkpoints/*/clients/C.safetensors"):
        file.write_bytes(file.read_bytes()[:-3])
    assert_same(whole, simulate(out=tmp_path / "run", resume=True))


@pytest.mark.slow
def test_a_corrupted_checkpoint_of_the_workload_is_found(simulate: Simulate, tmp_path: Path) -> None:
    struck = "faults=[{kind: corrupt, client: B, round: 2, phase: checkpoint}]"
    keys = (struck, "training.rounds=2", "metrics.every=0")
    with pytest.raises(DamagedError, match=r"B\.safetensors: is damaged"):  # when its last round is tested
        simulate(*keys, out=tmp_path / "run")
    assert_same(simulate(*keys[1:]), simulate(*keys, out=tmp_path / "run", resume=True))


@pytest.mark.slow
@pytest.mark.parametrize("table", ["rounds", "clients"])
def test_a_damaged_ledger_is_named(simulate: Simulate, whole: Run, tmp_path: Path, table: str) -> None:
    run = simulate("training.rounds=2", out=tmp_path / "run")
    path = run.path / f"{table}.parquet"
    good = path.read_bytes()
    data = pq.ParquetFile(path).metadata.row_group(0).column(1)
    at = data.data_page_offset + data.total_compressed_size - 20
    for content in (good[:-9], b"", good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=f"{table}.parquet: "):
            simulate(out=tmp_path / "run", resume=True)
    path.write_bytes(good)
    (run.path / "evaluation.parquet").unlink()
    assert_same(whole, simulate(out=tmp_path / "run", resume=True))


@pytest.mark.slow
def test_a_ledger_behind_its_checkpoint_is_refused(simulate: Simulate, tmp_path: Path) -> None:
    early = simulate("training.rounds=1", out=tmp_path / "run")
    kept = (early.path / "rounds.parquet").read_bytes()
    simulate("training.rounds=2", out=tmp_path / "run", resume=True)
    (early.path / "rounds.parquet").write_bytes(kept)
    with pytest.raises(DamagedError, match=r"rounds.parquet: lacks some of rounds 1 to 2"):
        simulate(out=tmp_path / "run", resume=True)


@pytest.mark.slow
def test_what_a_crash_leaves_is_no_checkpoint_and_is_cleared(simulate: Simulate, whole: Run, tmp_path: Path) -> None:
    """A half-written folder under its other name, and a half-deleted one."""
    run = simulate("training.rounds=2", out=tmp_path / "run")
    shutil.copytree(checkpoint.folder(run.path, 2), run.path / "checkpoints" / ".round-0003.part")
    assert checkpoint.complete_rounds(run.path) == [1, 2]
    (run.path / "checkpoints" / "round-0007" / "clients").mkdir(parents=True)
    (run.path / ".rounds.parquet.123.part").write_bytes(b"half")
    (run.path / "evaluation.parquet").unlink()
    assert_same(whole, simulate(out=tmp_path / "run", resume=True))
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == [
        "round-0001", "round-0002", "round-0003",
    ]  # fmt: skip
    assert not list(run.path.glob(".*.part"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("call", "path"), [("open", ".round-0002.part/clients/C.safetensors"), ("os.rename", ".round-0002.part")]
)
def test_a_run_that_is_killed_while_it_writes_a_checkpoint_goes_on(
    workload: Callable[..., Workload], simulate: Simulate, whole: Run, tmp_path: Path, call: str, path: str
) -> None:
    """With the file of one client just begun; and with all files there, but not yet under their name."""
    workload()
    out = tmp_path / "run"
    command = [sys.executable, "-c", KILLED_AT, call, path, tmp_path / "small.yaml", out]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert checkpoint.complete_rounds(out) == [1]
    assert (out / "checkpoints" / ".round-0002.part").is_dir()
    assert_same(whole, simulate(out=out, resume=True))
    assert [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_its_digest_is_of_all_it_says(simulate: Simulate) -> None:
    run = simulate("training.rounds=1", "metrics.every=0")
    path = checkpoint.folder(run.path, 1) / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "round": 2}))
    with pytest.raises(DamagedError, match="its digest does not match"):
        checkpoint.read_state(run.path, 1)


@pytest.mark.slow
def test_a_run_that_was_killed_before_it_had_begun_can_begin(simulate: Simulate, whole: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".workload.yaml.7.part").write_text("name: sma")
    assert_same(whole, simulate(out=tmp_path / "run", resume=True))


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_just_now_is_no_damaged_one(simulate: Simulate, tmp_path: Path) -> None:
    """A folder in the place of a file is what the system refuses to read, as it may for want of descriptors."""
    run = simulate(out=tmp_path / "run")
    for name in ("clients/C.safetensors", "shared.safetensors", "state.json"):
        file = checkpoint.folder(run.path, 3) / name
        good = file.read_bytes()
        file.unlink()
        file.mkdir()
        with pytest.raises(RunError, match=f"{file.name}: cannot be read"):
            simulate(out=tmp_path / "run", resume=True)
        file.rmdir()
        file.write_bytes(good)
    assert checkpoint.complete_rounds(run.path) == [1, 2, 3], "nothing was set aside"


@pytest.mark.slow
def test_without_the_best_round_the_last_is_tested(simulate: Simulate, tmp_path: Path) -> None:
    keys = (
        "training.optimizer=sgd",
        "training.lr=1.0",
        "federation.sites.1.training={}",
    )  # the last round is not the best
    run = simulate(*keys, out=tmp_path / "run")
    best = run.round("best")
    assert best < 3
    (run.path / "evaluation.parquet").unlink()
    shared = checkpoint.folder(run.path, best) / "shared.safetensors"
    shared.write_bytes(shared.read_bytes()[:-1])
    assert set(simulate(*keys, out=tmp_path / "run", resume=True).evaluation["round"]) == {3}
