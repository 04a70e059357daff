"""The command line as a user meets it: exit status, one line on stderr, nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity
from typer.main import get_command

from fedsim import cli
from fedsim.engine.checkpoint import complete_rounds

Fedsim = Callable[..., tuple[int, str, str]]

SMALL = """
name: small
federation:
  cache: {cache}
  root: {root}
  matrix: [32, 32]
  split: {{train: 0.5, val: 0.25, test: 0.25}}
  sites:
    - name: A
      source: {{format: phantom, subjects: 4, slices: 3, size: 48, contrast: [t1, t2]}}
    - name: B
      source: {{format: phantom, subjects: 4, slices: 2, size: 48, contrast: flair}}
      mask: {{kind: radial, acceleration: 3}}
model: {{channels: 2, pools: 2}}
training: {{rounds: 2, batch_size: 2, lr: 1.0e-3}}
engine: {{backend: serial}}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def workload(tmp_path: Path, cache: Path) -> Path:
    (tmp_path / "data").mkdir()
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.format(cache=cache, root=tmp_path / "data"))
    return path


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


def test_a_run_from_start_to_report(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    status, out, _ = fedsim("run", workload, "--out", tmp_path / "run")
    assert status == 0
    assert "round 2/2" in out
    assert "test split, round" in out
    assert "protocol fastmri" in out
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "workload.yaml", "manifest.parquet", "rounds.parquet", "clients.parquet", "evaluation.parquet",
        "checkpoints", "figures", "report.html",
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
        "evaluate": {"--split", "--round", "--save-images", "--set", "--address"},
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


# Bad input


def bad_files(data: Path) -> None:
    good = np.random.default_rng(0).random((3, 40, 40)).astype(np.float32)
    (data / "h5").mkdir()
    with h5py.File(data / "h5" / "scan.h5", "w") as file:
        file["kspace"] = np.fft.fft2(good).astype(np.complex64)
    content = (data / "h5" / "scan.h5").read_bytes()
    (data / "h5" / "scan.h5").write_bytes(content[: len(content) // 2])
    (data / "nan").mkdir()
    for subject in range(4):
        volume = np.moveaxis(good, 0, 2).copy()
        volume[3, 4, 1] = np.nan if subject == 2 else 1
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), data / "nan" / f"s{subject}.nii.gz")
    (data / "empty").mkdir()
    for subject in range(4):
        (data / "tiff" / f"s{subject}").mkdir(parents=True)
        tifffile.imwrite(data / "tiff" / f"s{subject}" / "1.tif", (255 * good[0]).astype(np.uint8))


TIFF = "{format: tiff, path: tiff}"
BAD_INPUT = [
    ("training.round=3", "unknown key; did you mean 'rounds'"),
    ("federation.sites.0.source={format: tiff, path: nowhere}", "nowhere: no such file or folder"),
    ("federation.sites.0.source={format: fastmri, path: h5}", "scan.h5: "),
    ("federation.sites.0.source={format: nifti, path: nan, subject: file}", "s2.nii.gz: has NaN or infinite values"),
    (f"federation.sites=[{{name: X, source: {TIFF}}}, {{name: Y, source: {TIFF}, split: {{train: 0.25, test: 0.6}}}}]",
     "sites that read the same subjects need the same split"),
    ("federation.sites.0.source={format: tiff, path: empty}", "empty: holds no image"),
    ("federation.sites.0.mask={kind: random, acceleration: 30}", "impossible mask"),
    ("federation.clients=5", "site A has 2 training subjects, so it can become 2 clients at most"),
    ("federation.sites.0.source.subjects=2", "site A: 2 subject(s) cannot fill 3 parts"),
    ("federation.sites.0.source={format: tiff, path: tiff, channel: 3}", "channel"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), BAD_INPUT)
def test_bad_input_gets_one_line_and_leaves_nothing(
    fedsim: Fedsim, workload: Path, tmp_path: Path, override: str, message: str
) -> None:
    bad_files(tmp_path / "data")
    before = set(tmp_path.iterdir())
    status, _, err = fedsim("run", workload, "--set", override)
    assert status == 2, err
    assert message in err
    assert err.startswith("fedsim: ")
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before, "no run directory"


def test_an_existing_out_is_refused_untouched(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    status, _, err = fedsim("run", workload, "--out", tmp_path / "run")
    assert status == 2
    assert "exists; choose another folder, or go on with --resume" in err
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["precious"]
    status, _, err = fedsim("run", workload, "--out", tmp_path / "run", "--resume")
    assert status == 2
    assert "is not a run" in err


@pytest.mark.parametrize(
    "arguments", [("run",), ("fly",), ("run", "none.yaml"), ("evaluate", "nowhere"), ("run", "--x")]
)
def test_wrong_arguments(fedsim: Fedsim, arguments: tuple[str, ...]) -> None:
    status, _, err = fedsim(*arguments)
    assert status == 2
    assert err.count("\n") == 1


@pytest.mark.parametrize("method", ["fedmri", "single"])
def test_a_diverged_client_fails_the_run_by_name(fedsim: Fedsim, workload: Path, tmp_path: Path, method: str) -> None:
    keys = ("--set", "training.lr=1e30", "--set", f"algorithm.name={method}")
    status, _, err = fedsim("run", workload, "--out", tmp_path / "run", *keys)
    assert status == 1
    assert err == "fedsim: client A, round 1: the loss is not finite; lower its learning rate\n"


def test_evaluating_leaves_the_workload_as_it_was(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    fedsim("run", workload, "--out", tmp_path / "run")
    before = (tmp_path / "run" / "workload.yaml").read_bytes()
    assert fedsim("evaluate", tmp_path / "run", "--set", "engine.checkpoint_every=7")[0] == 0
    assert (tmp_path / "run" / "workload.yaml").read_bytes() == before


def test_going_on_with_other_data_is_refused(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    for subject in range(6):
        (tmp_path / "data" / "tiff" / f"s{subject}").mkdir(parents=True)
        image = np.random.default_rng(subject).integers(1, 200, (40, 40)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "data" / "tiff" / f"s{subject}" / "1.tif", image)
    key = ("--set", f"federation.sites=[{{name: X, source: {TIFF}}}]", "--set", "training.batch_size=1")
    assert fedsim("run", workload, *key, "--out", tmp_path / "run")[0] == 0
    tifffile.imwrite(tmp_path / "data" / "tiff" / "s3" / "2.tif", np.ones((40, 40), np.uint8))
    for command in (("evaluate", tmp_path / "run"), ("run", workload, *key, "--out", tmp_path / "run", "--resume")):
        status, _, err = fedsim(*command)
        assert status == 2
        assert "site X: s3 is not what it was" in err


def test_a_dead_address_is_named_at_once(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    keys = ("--address", "127.0.0.1:9", "--set", "engine.backend=ray", "--out", tmp_path / "run")
    status, _, err = fedsim("run", workload, *keys)
    assert status == 2
    assert "--address 127.0.0.1:9: no Ray cluster answers there" in err
    assert not (tmp_path / "run").exists()


def test_an_address_needs_ray(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    status, _, err = fedsim("run", workload, "--address", "127.0.0.1:6379", "--out", tmp_path / "run")
    assert (status, err) == (2, "fedsim: --address 127.0.0.1:6379: needs engine.backend=ray\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", ["serial", "ray"])
def test_a_damaged_checkpoint_is_named(fedsim: Fedsim, workload: Path, tmp_path: Path, backend: str) -> None:
    fedsim("run", workload, "--out", tmp_path / "run")
    (file,) = (tmp_path / "run").glob("checkpoints/round-0002/clients/A.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    status, _, err = fedsim("evaluate", tmp_path / "run", "--round", "2", "--set", f"engine.backend={backend}")
    assert status == 2
    assert "A.safetensors: is damaged or missing" in err
    assert err.count("\n") == 1


def test_numbered_default_folders(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert fedsim("run", workload, "--set", "training.rounds=1")[0] == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"small", "small-2"}


@pytest.mark.parametrize("backend", ["serial", "ray"])
def test_ctrl_c_writes_a_checkpoint_and_resuming_equals_uninterrupted(
    fedsim: Fedsim, workload: Path, tmp_path: Path, backend: str
) -> None:
    keys = ["--set", "training.rounds=60", "--set", f"engine.backend={backend}", "--set", "engine.checkpoint_every=50"]
    command = [sys.executable, "-c", "from fedsim.cli import main; main()", "run", workload, *keys]
    process = subprocess.Popen([*command, "--out", tmp_path / "run"], start_new_session=True, stderr=subprocess.PIPE)
    ledger, deadline = tmp_path / "run" / "rounds.parquet", time.monotonic() + 120
    while not (ledger.exists() and len(pd.read_parquet(ledger)) >= 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the whole foreground group
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err.decode()
    assert b"go on with: fedsim run" in err
    (stopped,) = complete_rounds(tmp_path / "run")
    assert 3 <= stopped < 60
    rounds = ["--set", f"training.rounds={stopped + 2}", "--set", "engine.checkpoint_every=50"]
    assert fedsim("run", workload, *rounds, "--out", tmp_path / "whole")[0] == 0
    # the interrupted run asked for 60 rounds, which may not shrink: go on to one that equals the uninterrupted
    resumed = (tmp_path / "run" / "workload.yaml").read_text().replace("rounds: 60", f"rounds: {stopped + 2}")
    (tmp_path / "run" / "workload.yaml").write_text(resumed)
    assert fedsim("run", workload, *rounds, "--out", tmp_path / "run", "--resume")[0] == 0
    whole, part = (
        {
            p.relative_to(tmp_path / n): p.read_bytes()
            for p in sorted((tmp_path / n).glob("checkpoints/**/*.safetensors"))
        }
        for n in ("whole", "run")
    )
    assert whole == part
