"""Every format of raw data from its files to a reconstruction: inspect, import, train one round, reconstruct."""

import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedsim.analysis.reconstruct import reconstruct_file
from fedsim.core.errors import InputError
from fedsim.engine.simulation import run
from fedsim.report.inspect import inspect_path
from fedsim.workload.reading import load_workload

from .raw_files import MRD_HEADER, coil_images, fastmri
from .test_raw_formats import LAYOUTS, LINES, Layout

WORKLOAD = """
name: raw
federation:
  root: {root}
  cache: {root}/cache
  matrix: [16, 16]
  split: {{train: 0.5, val: 0, test: 0.5}}
  sites: [{{name: A, source: {{format: {format}, path: site}}}}]
model: {{channels: 2, pools: 2}}
algorithm: {{name: fedavg}}
training: {{rounds: 1, batch_size: 4}}
engine: {{backend: serial, checkpoint_every: 0}}
metrics: {{every: 0}}
"""
SMALL = {
    "varnet": (
        "model.channels=2",
        "model.pools=2",
        "model.cascades=1",
        "model.sensitivity_channels=2",
        "model.sensitivity_pools=2",
    ),
    "modl": ("model.channels=2", "model.iterations=2", "model.layers=2"),
}
OTHERS = {"m4raw": "2022061009_T201.h5", "cmrxrecon": "P009/cine_sax.mat", "skm_tea": "MTR_009.h5",
          "calgary_campinas": "e14099s3_P10000.7.h5"}  # fmt: skip


KEPT = ("federation.coils=keep", "model.name=varnet", *SMALL["varnet"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys", [pytest.param((), id="combined"), pytest.param(KEPT, id="kept", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.format)
def test_from_files_to_a_reconstruction(layout: Layout, keys: tuple[str, ...], tmp_path: Path) -> None:
    second = OTHERS.get(layout.format, f"other{Path(layout.name).suffix}")
    for number, name in enumerate((layout.name, second)):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        patient = {"patient": f"P{number}"} if layout.format == "mrd" else {}
        layout.write(path, coil_images(2, seed=number), **patient)
    table, _ = inspect_path(tmp_path / "site", tmp_path / "a.png")
    assert f"{layout.format}, 2 volumes of 2 subjects, 4 slices" in str(table.title)
    assert [*table.columns[4].cells] == ["2 coils, complex"] * 2
    (tmp_path / "w.yaml").write_text(WORKLOAD.format(root=tmp_path, format=layout.format))
    done = run(load_workload(tmp_path / "w.yaml", keys), tmp_path / "run")
    assert len(done.rounds) == 1
    ((_, said),) = reconstruct_file(done, "A", tmp_path / "site" / layout.name, "last", tmp_path / "out")
    assert "PSNR" in said
    layout.write(tmp_path / "site" / layout.name, coil_images(2), mask=LINES)
    ((path, said),) = reconstruct_file(done, "A", tmp_path / "site" / layout.name, "last", tmp_path / "out")
    assert "with the file's own mask" in said
    assert ("its 2 coils together" in said) == bool(keys)
    with h5py.File(path) as file:
        assert file["reconstruction"].shape == (2, 16, 16)
        assert np.isfinite(file["reconstruction"][()]).all()


@pytest.mark.parametrize(("coils", "model"), [("keep", "varnet"), (2, "modl")])
def test_networks_for_several_coils_take_all_coils_of_undersampled_files(
    coils: str | int, model: str, tmp_path: Path
) -> None:
    """With the file's own mask; its k-space where it was measured must come out unchanged by consistency alone."""
    site, images = tmp_path / "site", coil_images(2, coils=3, width=24)
    for number in range(2):
        fastmri(site / f"file{number}.h5", coil_images(2, coils=3, width=24, seed=number))
    keys = (f"federation.coils={coils}", f"model.name={model}", "federation.matrix=[24, 24]")
    (tmp_path / "w.yaml").write_text(WORKLOAD.format(root=tmp_path, format="fastmri"))
    done = run(load_workload(tmp_path / "w.yaml", [*keys, *SMALL[model]]), tmp_path / "run")
    lines = np.zeros(24, bool)
    lines[:21:3] = lines[8:16] = True
    fastmri(site / "file0.h5", images, mask=lines)
    ((path, said),) = reconstruct_file(done, "A", site / "file0.h5", "last", tmp_path / "out")
    assert "its 3 coils together" in said
    with h5py.File(path) as file:
        zero_filled, reconstruction = file["zero_filled"][()], file["reconstruction"][()]
        np.testing.assert_array_equal(file["mask"][0], np.broadcast_to(lines, (24, 24)))
    expected = np.linalg.norm(np.fft.ifft2(np.fft.fft2(images) * np.fft.ifftshift(lines)), axis=1)
    if coils == "keep":
        np.testing.assert_allclose(zero_filled, expected, rtol=1e-3, atol=0.05)
    assert np.abs(reconstruction - zero_filled).max() < 20 * zero_filled.max()
    assert np.isfinite(reconstruction).all()
    ramp = np.exp(2j * np.pi * 3 * (np.arange(24) - 12) / 24)
    fastmri(site / "file0.h5", images * ramp, mask=np.roll(lines, 3))
    ((path, said),) = reconstruct_file(done, "A", site / "file0.h5", "last", tmp_path / "out")
    assert "its 3 coils together, its echo moved by -3 of 24 lines" in said
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["reconstruction"][()], reconstruction, atol=0.005 * reconstruction.max())
        np.testing.assert_array_equal(file["mask"][0], np.broadcast_to(lines, (24, 24)))


@pytest.mark.slow
@pytest.mark.parametrize("centre", [(), range(8, 16)])
def test_a_mask_without_a_centre_is_told(centre: Sequence[int], tmp_path: Path) -> None:
    site = tmp_path / "site"
    for number in range(2):
        fastmri(site / f"file{number}.h5", coil_images(2, coils=3, width=24, seed=number))
    (tmp_path / "w.yaml").write_text(WORKLOAD.format(root=tmp_path, format="fastmri"))
    keys = ("federation.coils=keep", "model.name=varnet", "federation.matrix=[24, 24]", *SMALL["varnet"])
    done = run(load_workload(tmp_path / "w.yaml", keys), tmp_path / "run")
    lines = np.arange(24) % 3 == 0
    lines[list(centre)] = True
    fastmri(site / "file0.h5", coil_images(2, coils=3, width=24), mask=lines)
    ((_, said),) = reconstruct_file(done, "A", site / "file0.h5", "last", tmp_path / "out")
    guess = "the mask has no complete centre, so that sensitivities are little more than a guess"
    assert (guess in said) == (not centre)


@pytest.mark.slow
def test_undersampled_files_take_the_sensitivities_that_the_workload_says(tmp_path: Path) -> None:
    """ESPIRiT's kernels need more of the centre than the second file has."""
    site = tmp_path / "site"
    for number in range(2):
        fastmri(site / f"file{number}.h5", coil_images(2, coils=3, width=24, seed=number))
    (tmp_path / "w.yaml").write_text(WORKLOAD.format(root=tmp_path, format="fastmri"))
    keys = ("federation.coils=keep", "federation.matrix=[24, 24]", "federation.sites.0.source.maps=espirit")
    done = run(load_workload(tmp_path / "w.yaml", [*keys, "model.name=modl", *SMALL["modl"]]), tmp_path / "run")
    lines = np.zeros(24, bool)
    lines[::3] = lines[8:16] = True
    fastmri(site / "file0.h5", coil_images(2, coils=3, width=24), mask=lines)
    ((_, said),) = reconstruct_file(done, "A", site / "file0.h5", "last", tmp_path / "out")
    assert "its 3 coils together" in said
    lines[8:16] = np.arange(8) % 2
    fastmri(site / "file0.h5", coil_images(2, coils=3, width=24), mask=lines)
    with pytest.raises(InputError, match=r"maps: espirit needs 6 x 6 samples of the centre of k-space, and \d are"):
        [*reconstruct_file(done, "A", site / "file0.h5", "last", tmp_path / "out")]


@pytest.mark.slow
def test_the_workload_for_fastmris_brains_trains_on_files_that_its_comment_sorted(tmp_path: Path) -> None:
    """Two field strengths and two contrasts, as the headers of real files say them."""
    path = Path(__file__).parents[3] / "workloads" / "fastmri-multicoil.yaml"
    for number, (tesla, contrast, _) in enumerate(product(("1.494", "2.8936"), ("AXT1POST", "AXT2"), range(3))):
        file = tmp_path / "multicoil_train" / f"file_brain_{number}.h5"
        images = coil_images(1, coils=3, height=64, width=32, seed=number)
        fastmri(file, images, acquisition=contrast, patient_id=f"P{number}")
        of_system = f"<acquisitionSystemInformation><systemFieldStrength_T>{tesla}</systemFieldStrength_T>"
        values = {"x": 32, "y": 32, "z": 1, "fov": 200, "last": 31, "centre": 16, "trajectory": "cartesian"}
        head, tail = MRD_HEADER.format(**values, patient=f"P{number}").split("<experimentalConditions>")
        with h5py.File(file, "a") as hdf:
            rest = f"</acquisitionSystemInformation><experimentalConditions>{tail}"
            hdf["ismrmrd_header"] = head + of_system + rest
    (script,) = re.findall(r"python - <<'END'\n(.*?)#   END\n", path.read_text(), flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", script.replace("#   ", "")], cwd=tmp_path, check=True)
    assert {folder: len([*(tmp_path / folder).iterdir()]) for folder in ("1.5T", "3T")} == {"1.5T": 6, "3T": 6}
    keys = (
        f"federation.root={tmp_path}", f"federation.cache={tmp_path}/cache", "federation.matrix=[32, 32]",
        "federation.split={train: 0.34, val: 0.33, test: 0.33}", "training.rounds=1", "engine.backend=serial",
        *SMALL["varnet"],
    )  # fmt: skip
    done = run(load_workload(path, keys), tmp_path / "run")
    scored = done.evaluation
    assert sorted(scored["site"].unique()) == ["T1-1p5T", "T1-3T", "T2-1p5T", "T2-3T"]
    assert np.isfinite(scored[["psnr", "sense_psnr", "tv_psnr"]]).all(axis=None)
    assert done.manifest.groupby("site")["subject"].nunique().tolist() == [3] * 4
