import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fedsim.core.seeds import numpy_stream
from fedsim.data.masks import AnyMask
from fedsim.mri.masks import Mask, measured_acceleration

KINDS = ("equispaced", "random", "magic", "cartesian_vd", "radial", "gaussian2d", "poisson")


def make(kind: str, **keys: float) -> Mask:
    return TypeAdapter(AnyMask).validate_python({"kind": kind, **keys})


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_the_mask(kind: str) -> None:
    mask = make(kind)
    first, again, other = (mask.sample((64, 64), numpy_stream(0, "mask", key)) for key in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 64), (65, 48), (128, 128)])
def test_the_centre_is_sampled(kind: str, shape: tuple[int, int]) -> None:
    mask = make(kind).sample(shape, numpy_stream(0))
    assert mask.shape == shape
    assert mask.dtype == np.bool_
    assert mask[shape[0] // 2, shape[1] // 2]


@pytest.mark.parametrize("kind", ["equispaced", "random", "magic", "cartesian_vd"])
def test_line_masks_sample_whole_readouts(kind: str) -> None:
    mask = make(kind).sample((16, 64), numpy_stream(1))
    assert (mask == mask[0]).all()


@pytest.mark.parametrize("acceleration", [2.5, 4, 8])
@pytest.mark.parametrize("kind", ["cartesian_vd", "radial", "gaussian2d", "poisson"])
def test_exact_kinds_reach_the_acceleration(kind: str, acceleration: float) -> None:
    """Within one line of 128 (cartesian_vd), one spoke (radial), one point (gaussian2d, poisson)."""
    mask = make(kind, acceleration=acceleration).sample((128, 128), numpy_stream(2))
    one_unit = {"cartesian_vd": 1 / 128, "radial": 1.5 / 128, "gaussian2d": 1 / 128**2, "poisson": 1 / 128**2}[kind]
    assert abs(mask.mean() - 1 / acceleration) <= one_unit


@pytest.mark.parametrize("acceleration", [3, 4, 8])
def test_random_reaches_the_acceleration_on_average(acceleration: float) -> None:
    mask = make("random", acceleration=acceleration, center_fraction=0.04)
    shares = [mask.sample((1, 128), numpy_stream(3, i)).mean() for i in range(400)]
    assert np.mean(shares) == pytest.approx(1 / acceleration, abs=4 * np.std(shares) / 20)


def test_a_3x_equispaced_mask_with_its_centre_is_really_about_2_6x() -> None:
    mask = make("equispaced", acceleration=3)
    measured = [measured_acceleration(mask.sample((128, 128), numpy_stream(4, i))) for i in range(20)]
    assert np.mean(measured) == pytest.approx(1 / (1 / 3 + 0.08 * 2 / 3), abs=0.06)


@pytest.mark.parametrize("kind", ["random", "cartesian_vd", "equispaced", "magic"])
def test_an_impossible_mask_is_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match="impossible mask"):
        make(kind, acceleration=8, center_fraction=0.2)


@pytest.mark.parametrize("kind", ["radial", "gaussian2d", "poisson"])
def test_an_impossible_point_mask_is_refused(kind: str) -> None:
    assert make(kind, acceleration=8, center_fraction=0.3)
    with pytest.raises(ValidationError, match="impossible mask"):
        make(kind, acceleration=8, center_fraction=0.36)


def test_density_falls_from_the_centre() -> None:
    for kind in ("cartesian_vd", "gaussian2d"):
        mask = make(kind, center_fraction=0)
        share = np.mean([mask.sample((64, 64), numpy_stream(5, i)) for i in range(50)], axis=(0, 1))
        assert share[24:40].mean() > 2 * share[:8].mean()


@pytest.mark.parametrize("size", [64, 65, 66, 67, 101, 368])
@pytest.mark.parametrize("fraction", [0.02, 0.04, 0.05, 0.08, 0.1])
def test_the_centre_lies_where_fastmri_puts_it(size: int, fraction: float) -> None:
    """fastMRI: round(N * fraction) columns from (N - that + 1) // 2 on."""
    low = round(size * fraction)
    expected = np.zeros(size, bool)
    expected[(size - low + 1) // 2 :][:low] = True
    masks = (
        make("random", acceleration=8, center_fraction=fraction).sample((1, size), numpy_stream(s)) for s in range(30)
    )
    np.testing.assert_array_equal(np.logical_and.reduce(list(masks))[0], expected)


def fastmris_magic(size: int, acceleration: int, offset: int) -> NDArray[np.bool_]:
    """The columns outside the centre according to fastMRI's MagicMaskFunc, written from its description.

    Frequencies 0, 1, ... and -1, -2, ... are each sampled every `acceleration`, from offsets that differ by one.
    """
    positive, negative = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    columns = np.zeros(size, bool)
    for frequency in range(-(size // 2), (size + 1) // 2):
        place, first = (frequency, positive) if frequency >= 0 else (-frequency - 1, negative)
        columns[size // 2 + frequency] = place >= first and (place - first) % acceleration == 0
    return columns


@pytest.mark.parametrize("size", [16, 17, 64, 101])
@pytest.mark.parametrize("acceleration", [2, 3, 4, 8])
def test_magic_masks_are_fastmris(size: int, acceleration: int) -> None:
    mask = make("magic", acceleration=acceleration, center_fraction=0)
    drawn = {mask.sample((1, size), numpy_stream(s))[0].tobytes() for s in range(60)}
    assert drawn == {fastmris_magic(size, acceleration, offset).tobytes() for offset in range(acceleration)}


def test_magic_samples_and_their_conjugates_never_meet() -> None:
    mask = make("magic", acceleration=4, center_fraction=0).sample((1, 65), numpy_stream(0))[0]
    assert not (mask & mask[::-1]).any()
    with pytest.raises(ValidationError, match=r"must be a whole number for a magic mask, not 2\.5"):
        make("magic", acceleration=2.5)


def test_poisson_points_keep_their_distance() -> None:
    """Farther from each other than random points of the same number; the farther out, the more."""
    mask = make("poisson", acceleration=8, center_fraction=0).sample((96, 96), numpy_stream(0))
    points = np.argwhere(mask)
    apart = np.sort(np.hypot(*(points[:, None] - points).transpose(2, 0, 1)), axis=1)[:, 1]
    out = np.hypot(*(points - 48).T)
    assert apart[out > 30].min() > 1.5
    assert apart[out > 40].mean() > 1.5 * apart[out < 15].mean()
