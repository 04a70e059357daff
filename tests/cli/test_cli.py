"""The command line as a user meets it: exit status, one line on stderr, nothing half-written."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity
from typer.main import get_command

from fedsim.cli import app as cli
from fedsim.engine.state.checkpoint import complete_rounds
from tests.conftest import COMMAND

Fedsim = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_a_run_from_start_to_report(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    status, out, _ = fedsim("run", workload, "--out", tmp_path / "run")
    assert status == 0
    assert "round 2/2" in out
    assert "test split, round" in out
    assert "protocol fastmri" in out
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "workload.yaml", "manifest.parquet", "rounds.parquet", "clients.parquet", "evaluation.parquet",
        "checkpoints", "figures", "log.txt", "report.html",
    }  # fmt: skip
    status, out, _ = fedsim("report", tmp_path / "run")
    assert status == 0
    assert fedsim("run", tmp_path / "run" / "workload.yaml", "--out", tmp_path / "again")[0] == 0
    first, again = (pd.read_parquet(tmp_path / name / "evaluation.parquet") for name in ("run", "again"))
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def by_scikit_image(x: np.ndarray, t: np.ndarray) -> dict[str, float]:
    """fastMRI's protocol, written with scikit-image."""
    return {
        "nmse": normalized_root_mse(t, x) ** 2,
        "psnr": peak_signal_noise_ratio(t, x, data_range=t.max()),
        "ssim": np.mean([structural_similarity(a, b, data_range=t.max()) for a, b in zip(t, x, strict=True)]),
    }


@pytest.mark.slow
def test_evaluated_metrics_are_those_of_the_saved_images(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fedsim("run", workload, "--out", run)
    assert fedsim("evaluate", run, "--round", "last", "--split", "val", "--save-images")[0] == 0
    frame = pd.read_parquet(run / "evaluation.parquet")
    rows = frame[frame["split"] == "val"]
    assert len(rows) == 3
    for row in rows.itertuples():
        with h5py.File(run / "images" / row.client / f"{row.volume}.h5") as file:
            images = {name: file[name][:] for name in ("reconstruction", "target", "zero_filled")}
        assert all(image.dtype == np.float32 for image in images.values())
        for prefix, name in (("", "reconstruction"), ("zf_", "zero_filled")):
            reference = by_scikit_image(images[name].astype(float), images["target"].astype(float))
            assert {k: getattr(row, prefix + k) for k in reference} == pytest.approx(reference, abs=1e-6)
    assert set(frame["split"]) == {"test", "val"}, "the run's own evaluation is kept"


@pytest.mark.slow
def test_reconstructing_a_file(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    fedsim("run", workload, "--out", tmp_path / "run")
    assert fedsim("data", "phantom", tmp_path / "heads", "--set", "subjects=1", "--set", "slices=3")[0] == 0
    (head,) = (tmp_path / "heads").iterdir()
    status, out, _ = fedsim("reconstruct", tmp_path / "run", "--client", "B", head, "--out", tmp_path / "out")
    assert status == 0
    assert "PSNR" in out
    with h5py.File(next((tmp_path / "out").iterdir())) as file:
        assert file["reconstruction"].shape == (3, 32, 32)
    status, _, err = fedsim("reconstruct", tmp_path / "run", "--client", "Z", head)
    assert (status, err) == (2, "fedsim: --client Z: the run's clients are A, B\n")


def test_looking_at_data(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    status, out, _ = fedsim("data", "import", workload)
    assert status == 0
    assert "equispaced" in out
    fedsim("data", "phantom", tmp_path / "heads", "--set", "subjects=2", "--set", "slices=2")
    status, out, _ = fedsim("data", "inspect", tmp_path / "heads")
    assert status == 0
    assert (tmp_path / "inspect-heads.png").stat().st_size > 1000


def test_schema_and_help(fedsim: Fedsim) -> None:
    status, out, _ = fedsim("schema")
    assert status == 0
    assert '"Workload"' in out
    assert fedsim("run", "--help")[0] == 0


def test_the_contract_of_commands_and_flags() -> None:
    """Scripts rely on these: a flag may join, none may go."""
    flags = {
        "run": {"--set", "--out", "--resume", "--address"},
        "evaluate": {"--split", "--round", "--save-images", "--cross", "--set", "--address"},
        "unseen": {"--slices", "--round", "--out"},
        "study": {"--set", "--out", "--address"},
        "submit": {"--cluster", "--set", "--out", "--wait", "--dry-run"},
        "watch": {"--once", "--web"},
        "compare": {"--reference", "--out"},
        "reconstruct": {"--client", "--round", "--out"},
        "report": set(),
        "schema": set(),
        "doctor": set(),
        "data": set(),
    }
    commands = get_command(cli.app).commands
    assert flags.keys() <= commands.keys()
    for name, expected in flags.items():
        assert expected <= {option for parameter in commands[name].params for option in parameter.opts}
    assert {"import", "inspect", "phantom"} <= commands["data"].commands.keys()


@pytest.mark.slow
def test_numbered_default_folders(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert fedsim("run", workload, "--set", "training.rounds=1")[0] == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"small", "small-2"}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["serial", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long])])
def test_ctrl_c_writes_a_checkpoint_and_resuming_equals_uninterrupted(
    fedsim: Fedsim, workload: Path, tmp_path: Path, backend: str
) -> None:
    rounds = ["--set", "training.rounds=5", "--set", "training.local_epochs=2", "--set", "engine.checkpoint_every=50"]
    keys = [*rounds, "--set", f"engine.backend={backend}"]
    command = [*COMMAND, "run", workload, *keys]
    process = subprocess.Popen([*command, "--out", tmp_path / "run"], start_new_session=True, stderr=subprocess.PIPE)
    log, deadline = tmp_path / "run" / "log.txt", time.monotonic() + 120
    while not (log.exists() and "round 2/5" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)  # the log has each round at once, the ledger only now and then
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the whole foreground group
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err.decode()
    assert b"resume with: fedsim run" in err
    (stopped,) = complete_rounds(tmp_path / "run")
    assert 2 <= stopped < 5
    assert fedsim("run", workload, *rounds, "--out", tmp_path / "whole")[0] == 0
    assert fedsim("run", workload, *rounds, "--out", tmp_path / "run", "--resume")[0] == 0
    whole, part = (
        {
            p.relative_to(tmp_path / n): p.read_bytes()
            for p in sorted((tmp_path / n).glob("checkpoints/**/*.safetensors"))
        }
        for n in ("whole", "run")
    )
    assert whole == part
