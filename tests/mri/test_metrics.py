import math

import numpy as np
import pytest
from scipy.ndimage import convolve
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from fedsim.mri.metrics import Mean, hfen, mean_quality, region_quality, volume_quality


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


def by_fastmri(x: np.ndarray, t: np.ndarray) -> tuple[float, float, float]:
    """As fastMRI's evaluate.py scores a file: both images cropped to a square of the width."""
    top = (t.shape[-2] - t.shape[-1]) // 2
    x, t = x[:, top : top + t.shape[-1]], t[:, top : top + t.shape[-1]]
    ssim = np.mean([structural_similarity(a, b, data_range=t.max()) for a, b in zip(t, x, strict=True)])
    nmse = np.linalg.norm(t - x) ** 2 / np.linalg.norm(t) ** 2
    return nmse, peak_signal_noise_ratio(t, x, data_range=t.max()), ssim


@pytest.mark.parametrize("height", [32, 40, 41])
def test_high_images_are_scored_on_the_square_that_fastmri_scores(height: int) -> None:
    rng = np.random.default_rng(height)
    target = rng.random((2, height, 32)).astype(np.float32)
    target[:, 0] = 9  # outside the square, so not the data range
    x = target + 0.1 * rng.standard_normal(target.shape).astype(np.float32)
    assert volume_quality(x, target) == pytest.approx(by_fastmri(x, target), rel=1e-5)
    whole = volume_quality(x.swapaxes(1, 2), target.swapaxes(1, 2))
    assert whole.psnr == pytest.approx(peak_signal_noise_ratio(target, x, data_range=9), rel=1e-5), "wider than high"


def log_of(image: np.ndarray) -> np.ndarray:
    """The Laplacian of a Gaussian as MATLAB's fspecial has it, by plain loops over its 15x15 points."""
    g = np.array([[np.exp(-(x**2 + y**2) / 4.5) for x in range(-7, 8)] for y in range(-7, 8)])
    h = [[g[y + 7, x + 7] * (x**2 + y**2 - 4.5) / 1.5**4 / g.sum() for x in range(-7, 8)] for y in range(-7, 8)]
    return convolve(image, np.array(h) - np.mean(h), mode="constant")


def test_hfen_equals_its_definition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, t = (a.astype(np.float64) for a in pair)
    apart = [np.linalg.norm(log_of(a) - log_of(b)) for a, b in zip(x, t, strict=True)]
    own = [np.linalg.norm(log_of(b)) for b in t]
    assert hfen(*pair) == pytest.approx(np.linalg.norm(apart) / np.linalg.norm(own), rel=1e-9)
    assert hfen(*pair, "slice") == pytest.approx(np.mean(np.divide(apart, own)), rel=1e-9)
    assert hfen(pair[1], pair[1]) == 0
    assert hfen(3 * pair[0], 3 * pair[1]) == pytest.approx(hfen(*pair), rel=1e-6)


def test_hfen_sees_a_lost_edge_that_a_shift_in_brightness_does_not_hide() -> None:
    target = np.zeros((1, 64, 64), np.float32)
    target[:, 20:44, 20:44] = 1
    smooth = convolve(target, np.ones((1, 5, 5)) / 25)
    brighter = target * (1 + np.linalg.norm(smooth - target) / np.linalg.norm(target))
    assert volume_quality(smooth, target).nmse == pytest.approx(volume_quality(brighter, target).nmse, rel=1e-3)
    assert hfen(smooth, target) > 2 * hfen(brighter, target)


@pytest.mark.parametrize("protocol", ["fastmri", "slice"])
def test_a_region_is_scored_by_its_pixels_alone(pair: tuple[np.ndarray, np.ndarray], protocol: str) -> None:
    x, t = pair[0].copy(), pair[1]
    region = np.zeros(t.shape, bool)
    region[1, 4:9, 6:20] = region[3, 20:30, 8:12] = True
    expected = region_quality(x, t, region, protocol)
    peak = [t.max()] * 4 if protocol == "fastmri" else t.max((1, 2))
    assert region_quality(x, t, np.ones(t.shape, bool), protocol)[:2] == pytest.approx(
        volume_quality(x, t, protocol)[:2]
    )
    errors = [((x - t)[at][region[at]] ** 2) for at in (1, 3)]
    if protocol == "fastmri":
        assert expected.psnr == pytest.approx(10 * np.log10(peak[0] ** 2 / np.concatenate(errors).mean()), rel=1e-6)
    else:
        each = [10 * np.log10(peak[at] ** 2 / e.mean()) for at, e in zip((1, 3), errors, strict=True)]
        assert expected.psnr == pytest.approx(np.mean(each), rel=1e-6)
    x[0] = 0  # no window of the region reaches there
    assert region_quality(x, t, region, protocol) == expected
    assert all(math.isnan(value) for value in region_quality(x, t, np.zeros(t.shape, bool), protocol))
