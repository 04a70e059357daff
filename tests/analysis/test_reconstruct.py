"""Reconstructing files and arrays with a run's models, and what fastMRI's own evaluation makes of the files."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fedsim.analysis.reconstruct import beside_fastmri, reconstruct_file
from fedsim.core.errors import InputError
from fedsim.data.batch import undersample
from fedsim.data.formats.phantom import PhantomSource
from fedsim.engine.record.run_directory import Run
from fedsim.mri.fft import fft2c, ifft2c
from fedsim.workload.metrics import Metrics


def images(size: int = 32) -> NDArray[np.complex64]:
    """(slices, size, size) of a phantom."""
    source = PhantomSource(subjects=1, slices=3, size=size, contrast="t2").resolve(1, "P")
    return next(iter(source.volumes(Path()))).images


def kspace(of: NDArray[np.complex64]) -> NDArray[np.complex64]:
    return fft2c(torch.from_numpy(of)).numpy()


LINES = np.zeros(32, bool)
LINES[1::3] = LINES[13:19] = True


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1.0, 1e-6, 3e4])
def test_raw_kspace_gives_images_in_its_own_units(finished: Run, unit: float) -> None:
    """As if the caller had divided by the scale and multiplied by it again, which is nobody else's affair."""
    raw = (kspace(images()) * LINES * unit).astype(np.complex64)
    batch = undersample(torch.from_numpy(raw), torch.from_numpy(LINES).expand(raw.shape), "std")
    with torch.inference_mode():
        expected = finished.model("A.1")(batch.kspace, batch.mask) * batch.scale
    np.testing.assert_allclose(finished.reconstruct(raw, "A.1"), expected, rtol=1e-3, atol=1e-4 * unit)
    np.testing.assert_allclose(finished.reconstruct(raw[1], "A.1"), expected[1], rtol=1e-3, atol=1e-4 * unit)


@pytest.mark.slow
def test_images_and_full_kspace_are_undersampled_with_the_clients_mask(finished: Run) -> None:
    magnitude = np.abs(images())
    ours = finished.reconstruct(magnitude, "B")
    np.testing.assert_array_equal(ours, finished.reconstruct(kspace(magnitude.astype(np.complex64)), "B"))
    assert not np.allclose(ours, finished.reconstruct(kspace(images()) * LINES, "B"), rtol=1e-2)
    with pytest.raises(InputError, match="multiples of 4"):
        finished.reconstruct(magnitude[:, :30, :30], "B")
    with pytest.raises(InputError, match="the run's clients are"):
        finished.reconstruct(magnitude, "Z")


def test_undersampled_files_keep_their_own_mask(finished: Run, tmp_path: Path) -> None:
    """Two coils, an oversampled readout, another matrix: the columns measured are still those of the file."""
    lines = np.zeros(48, bool)
    lines[1::3] = lines[20:28] = True
    seen = images(48)
    wide = np.pad(seen, ((0, 0), (24, 24), (0, 0)))  # (3, 96, 48)
    coils = np.stack([kspace(wide), 0.5j * kspace(wide)], 1) * lines
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = coils.astype(np.complex64)
    ((path, said),) = reconstruct_file(finished, "A.1", tmp_path / "a.h5", "best", tmp_path / "out")
    assert "own mask (R = 2.00, at 32x32, its 2 coils one by one)" in said
    assert "no ground truth" in said
    assert "PSNR" not in said
    with h5py.File(path) as file:
        assert set(file) == {"reconstruction", "zero_filled", "mask"}
        assert (file["mask"][()] == lines[8:40]).all()
        assert file["reconstruction"].shape == (3, 32, 32)
        expected = ifft2c(torch.from_numpy(kspace(seen)[:, 8:40, 8:40] * lines[8:40])).abs().numpy() * 32 / 48
        np.testing.assert_allclose(file["zero_filled"][()], np.sqrt(1.25) * expected, rtol=1e-3, atol=1e-4)
        assert file.attrs["client"] == "A.1"
        assert file.attrs["mask_from"] == "file"
        assert file.attrs["acceleration"] == pytest.approx(32 / lines[8:40].sum())


def by_fastmri(targets: Path, predictions: Path) -> dict[str, list[float]]:
    """What fastMRI's evaluation reads of two folders, and its PSNR and SSIM; metrics by scikit-image."""
    scores: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for path in sorted(targets.iterdir()):
        with h5py.File(path) as target_file, h5py.File(predictions / path.name) as recons_file:
            assert isinstance(target_file.attrs["acquisition"], str)
            for challenge in ("reconstruction_esc", "reconstruction_rss"):
                target = target_file[challenge][()]
            recons = recons_file["reconstruction"][()]
        width = target.shape[-1]
        top = (target.shape[-2] - width) // 2
        target, recons = (one[:, top : top + width].astype(float) for one in (target, recons))
        largest = target.max()
        scores["psnr"].append(peak_signal_noise_ratio(target, recons, data_range=largest))
        pairs = zip(target, recons, strict=True)
        scores["ssim"].append(np.mean([structural_similarity(*pair, data_range=largest) for pair in pairs]))
    return scores


def test_fastmris_evaluation_takes_the_files_and_gives_the_same_numbers(finished: Run, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace(images())
        file.attrs["acquisition"] = "AXT2"
    beside = Run(finished.path, ["metrics.references=[tv]"])
    ((path, said),) = reconstruct_file(beside, "A.1", tmp_path / "a.h5", "last", tmp_path / "out")
    assert "at 32x32); total variation " in said
    scores = by_fastmri(tmp_path / "out", tmp_path / "out")
    assert f"-> {scores['psnr'][0]:.2f} dB" in said
    assert f"-> {scores['ssim'][0]:.4f}" in said
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
        assert file["tv"].shape == file["target"].shape
        assert attributes["acceleration"] == pytest.approx(32**2 / file["mask"][()].sum())
    assert (attributes["client"], attributes["round"], attributes["protocol"]) == (
        "A.1",
        finished.round("last"),
        "fastmri",
    )
    assert (attributes["acquisition"], attributes["mask_from"]) == ("AXT2", "client")


def test_where_fastmri_scores_otherwise_is_said(finished: Run) -> None:
    """W is 48x32: cropped there and here. Only what is wider than high differs, and another protocol."""
    assert beside_fastmri(finished.workload) == ""
    content = finished.workload.model_dump()
    wide = type(finished.workload).model_validate(
        content | {"federation": content["federation"] | {"matrix": (32, 48)}}
    )
    assert "refuses images wider than high, which are scored whole: A (32x48)" in beside_fastmri(wide)
    other = finished.workload.model_copy(update={"metrics": Metrics(protocol="slice")})
    assert "metrics.protocol is slice" in beside_fastmri(other)


def test_saved_images_give_the_same_numbers_as_fastmris_evaluation(finished: Run, tmp_path: Path) -> None:
    """W is 48x32, so that images are cropped; its file is target and prediction at once."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace(images())
    ((path, said),) = reconstruct_file(finished, "W", tmp_path / "a.h5", "last", tmp_path / "out")
    with h5py.File(path) as file:
        target, x = (file[name][:, 8:40].astype(float) for name in ("reconstruction_rss", "reconstruction"))
    psnr = peak_signal_noise_ratio(target, x, data_range=target.max())
    ssim = np.mean([structural_similarity(a, b, data_range=target.max()) for a, b in zip(target, x, strict=True)])
    assert f"-> {psnr:.2f} dB" in said
    assert f"-> {ssim:.4f}" in said
