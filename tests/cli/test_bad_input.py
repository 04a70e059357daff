"""Bad input gets one line on stderr and the right exit status, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

Fedsim = Callable[..., tuple[int, str, str]]


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
    (f"federation.sites=[{{name: X, source: {TIFF}}}, {{name: Y, source: {TIFF}, split: {{train: 1, val: 0, test: 0}}}}"
     "]",
     "no division leaves each of them in one part"),
    ("federation.sites.0.source={format: tiff, path: empty}", "empty: holds no image"),
    ("federation.sites.0.mask={kind: random, acceleration: 30}", "impossible mask"),
    ("federation.clients=5", "site A has 2 training subjects, so it can become 2 clients at most"),
    ("federation.sites.0.source.subjects=2", "site A: 2 subjects cannot fill 3 parts"),
    ("federation.sites.0.source={format: tiff, path: tiff, channel: 3}", "channel"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), BAD_INPUT)
def test_bad_input_gets_one_line_and_leaves_nothing(
    fedsim: Fedsim, workload: Path, tmp_path: Path, override: str, message: str
) -> None:
    bad_files(tmp_path / "data")
    before = set(tmp_path.iterdir())
    status, said, err = fedsim("run", workload, "--set", override)
    assert (status, said) == (2, ""), err
    assert message in err
    assert err.startswith("fedsim: ")
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before, "no run directory"


def test_an_existing_out_is_refused_untouched(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    status, _, err = fedsim("run", workload, "--out", tmp_path / "run")
    assert status == 2
    assert "exists; choose another folder, or --resume or --overwrite the run in it" in err
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
    said = "fedsim: client A, round 1: the loss is not finite; its data are sound, so lower its learning rate"
    assert err.splitlines()[-1] == said


@pytest.mark.slow
def test_evaluating_leaves_the_workload_as_it_was(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    fedsim("run", workload, "--out", tmp_path / "run")
    before = (tmp_path / "run" / "workload.yaml").read_bytes()
    assert fedsim("evaluate", tmp_path / "run", "--set", "engine.checkpoint_every=7")[0] == 0
    assert (tmp_path / "run" / "workload.yaml").read_bytes() == before


@pytest.mark.slow
def test_going_on_with_other_data_is_refused(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    for subject in range(6):
        (tmp_path / "data" / "tiff" / f"s{subject}").mkdir(parents=True)
        image = np.random.default_rng(subject).integers(1, 200, (40, 40)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "data" / "tiff" / f"s{subject}" / "1.tif", image)
    key = ("--set", f"federation.sites=[{{name: X, source: {TIFF}}}]", "--set", "training.batch_size=1")
    assert fedsim("run", workload, *key, "--out", tmp_path / "run")[0] == 0
    tifffile.imwrite(tmp_path / "data" / "tiff" / "s3" / "2.tif", image)
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


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["serial", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long])])
def test_a_damaged_checkpoint_is_named(fedsim: Fedsim, workload: Path, tmp_path: Path, backend: str) -> None:
    fedsim("run", workload, "--out", tmp_path / "run")
    (file,) = (tmp_path / "run").glob("checkpoints/round-0002/clients/A.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    status, _, err = fedsim("evaluate", tmp_path / "run", "--round", "2", "--set", f"engine.backend={backend}")
    assert status == 2
    assert "A.safetensors: is damaged" in err
    assert err.count("\n") == 1
