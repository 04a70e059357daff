import math

import numpy as np
import pytest
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from fedsim.mri.metrics import Mean, mean_quality, volume_quality


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.random((4, 32, 40)).astype(np.float32) * np.array([1, 2, 3, 4], np.float32)[:, None, None]
    return target + 0.1 * rng.standard_normal(target.shape).astype(np.float32), target


def test_fastmri_protocol_equals_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, t = (a.astype(np.float64) for a in pair)
    quality = volume_quality(*pair, protocol="fastmri")
    assert quality.psnr == pytest.approx(peak_signal_noise_ratio(t, x, data_range=t.max()), abs=1e-9)
    assert quality.nmse == pytest.approx(normalized_root_mse(t, x) ** 2, abs=1e-12)
    ssim = [structural_similarity(a, b, data_range=t.max()) for a, b in zip(t, x, strict=True)]
    assert quality.ssim == pytest.approx(np.mean(ssim), abs=1e-12)


def test_slice_protocol_is_the_mean_of_single_slices(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, t = pair
    each = [volume_quality(x[i : i + 1], t[i : i + 1], "fastmri") for i in range(4)]
    assert volume_quality(x, t, "slice") == pytest.approx(mean_quality(each))
    assert volume_quality(x, t, "slice").psnr < volume_quality(x, t, "fastmri").psnr - 1


def test_a_perfect_image() -> None:
    image = np.random.default_rng(1).random((2, 16, 16)).astype(np.float32)
    assert volume_quality(image, image) == (0, math.inf, 1)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        volume_quality(np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 9), np.float32))


def test_means_pool() -> None:
    parts = [Mean(3.0, 2), Mean(5.0, 1), Mean()]
    assert sum(parts, Mean()).value == pytest.approx(8 / 3)
    assert math.isnan(Mean().value)
    assert all(math.isnan(value) for value in mean_quality([]))
