"""The calibration region equals a search written out as loops, and is what every kind of mask says it has."""

import numpy as np
import pytest
import torch

from fedsim.mri.calibration import calibration_region
from fedsim.mri.masks import CartesianVariableDensity, Equispaced, Gaussian2D, Radial, Random


def lines_of_fastmri(columns: np.ndarray) -> tuple[int, int]:
    """First column and number of columns of the calibration region, as fastMRI counts them."""
    width, centre = len(columns), len(columns) // 2
    left = right = 0
    while columns[centre - left - 1]:
        left += 1
    while columns[centre + right]:
        right += 1
    count = max(2 * min(left, right), 1)
    return (width - count + 1) // 2, count


@pytest.mark.parametrize("width", [32, 33, 48, 71])
@pytest.mark.parametrize("kind", [Equispaced, Random, CartesianVariableDensity])
@pytest.mark.parametrize("fraction", [0.0, 0.04, 0.08, 0.15])
def test_of_lines_it_is_fastmris(width: int, kind: type, fraction: float) -> None:
    mask = kind(acceleration=4, center_fraction=fraction).sample((17, width), np.random.default_rng(width))
    start, count = lines_of_fastmri(mask[0])
    found = calibration_region(torch.from_numpy(mask)).numpy()
    expected = np.zeros_like(mask)
    expected[:, start : start + count] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(32, 32), (40, 24), (31, 45)])
@pytest.mark.parametrize("kind", [Radial, Gaussian2D])
def test_of_points_it_is_the_complete_rectangle_of_best_balance(shape: tuple[int, int], kind: type) -> None:
    mask = kind(acceleration=4, center_fraction=0.2).sample(shape, np.random.default_rng(0))
    found = calibration_region(torch.from_numpy(mask)).numpy()
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    assert found.sum() == len(rows) * len(columns), "it is a rectangle"
    shares = [len(one) / side for one, side in zip((rows, columns), shape, strict=True)]
    best = max(
        min(height / shape[0], width / shape[1])
        for height in range(2, shape[0], 2)
        for width in range(2, shape[1], 2)
        if mask[
            shape[0] // 2 - height // 2 : shape[0] // 2 + height // 2,
            shape[1] // 2 - width // 2 : shape[1] // 2 + width // 2,
        ].all()
    )
    assert min(shares) == best


def test_a_complete_mask_is_all_calibration() -> None:
    assert calibration_region(torch.ones(2, 8, 9, dtype=torch.bool)).all()


def test_each_mask_has_its_own() -> None:
    masks = [Equispaced(center_fraction=f).sample((16, 32), np.random.default_rng(0)) for f in (0.1, 0.2)]
    together = calibration_region(torch.from_numpy(np.stack(masks)))
    for mask, found in zip(masks, together, strict=True):
        assert torch.equal(found, calibration_region(torch.from_numpy(mask)))
