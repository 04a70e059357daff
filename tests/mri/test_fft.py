import numpy as np
import pytest
import torch

from fedsim.mri.fft import fft2c, ifft2c

SHAPES = [(8, 8), (7, 9), (64, 48), (1, 5)]


def random_complex(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, *shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip(shape: tuple[int, int]) -> None:
    image = random_complex(shape)
    torch.testing.assert_close(ifft2c(fft2c(image)), image)
    torch.testing.assert_close(fft2c(ifft2c(image)), image)


@pytest.mark.parametrize("shape", SHAPES)
def test_parseval(shape: tuple[int, int]) -> None:
    image = random_complex(shape)
    torch.testing.assert_close(fft2c(image).norm(), image.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_adjoint(shape: tuple[int, int]) -> None:
    image, kspace = random_complex(shape, 1), random_complex(shape, 2)
    forward = torch.vdot(kspace.flatten(), fft2c(image).flatten())
    backward = torch.vdot(ifft2c(kspace).flatten(), image.flatten())
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_numpy(shape: tuple[int, int]) -> None:
    image = random_complex(shape).numpy()
    axes = (-2, -1)
    reference = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho"), axes=axes)
    np.testing.assert_allclose(fft2c(torch.from_numpy(image)).numpy(), reference, atol=1e-12)


def test_a_constant_image_is_the_centre_of_kspace() -> None:
    kspace = fft2c(torch.ones(6, 8, dtype=torch.complex128))
    assert kspace[3, 4].abs() == pytest.approx(np.sqrt(48))
    assert kspace.abs().sum() == pytest.approx(np.sqrt(48))
