import numpy as np
import pytest

from fedsim.mri.geometry import centre_crop_or_pad, kspace_at, square


@pytest.mark.parametrize(("have", "want"), [(8, 4), (8, 5), (7, 4), (7, 5), (4, 8), (5, 8), (4, 7), (5, 7), (6, 6)])
def test_the_centre_stays_the_centre(have: int, want: int) -> None:
    array = np.zeros((have, have))
    array[have // 2, have // 2] = 1
    moved = centre_crop_or_pad(array, (want, want))
    assert moved.shape == (want, want)
    assert moved[want // 2, want // 2] == 1


def test_crop_undoes_pad() -> None:
    array = np.arange(2 * 5 * 6).reshape(2, 5, 6)
    np.testing.assert_array_equal(centre_crop_or_pad(centre_crop_or_pad(array, (9, 8)), (5, 6)), array)


def test_square_keeps_every_pixel() -> None:
    assert square(np.ones((3, 4, 7))).shape == (3, 7, 7)
    assert square(np.ones((3, 4, 7))).sum() == 3 * 28


@pytest.mark.parametrize("matrix", [(16, 16), (32, 32), (48, 48), (16, 32)])
def test_another_matrix_keeps_the_units(matrix: tuple[int, int]) -> None:
    kspace = kspace_at(np.full((1, 32, 32), 5.0), matrix)
    image = np.fft.ifft2(np.fft.ifftshift(kspace[0]), norm="ortho")
    if matrix <= (32, 32):  # a smaller one is a low pass: constants stay
        np.testing.assert_allclose(abs(image), 5.0, rtol=1e-5)
    assert abs(image).mean() == pytest.approx(5.0, rel=1e-5)
