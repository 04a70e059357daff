"""Reconstructions without training, against their definitions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsim.mri.coils import adjoint, forward
from fedsim.mri.fft import fft2c, ifft2c, mirrored
from fedsim.mri.masks import Equispaced, effective_acceleration, measured_acceleration
from fedsim.mri.references import (
    CG_WEIGHT,
    TV_WEIGHT,
    conjugate_filled,
    sense,
    total_variation,
)

SHAPES = [(12, 16), (15, 16), (12, 9), (15, 9)]


def blocks(height: int, width: int) -> Tensor:
    """An image (H, W) of constant blocks, positive."""
    image = torch.zeros(height, width)
    image[height // 4 : -height // 4, width // 4 : -width // 4] = 1
    image[height // 3 : height // 2, width // 3 : width // 2] = 2.5
    return image


def scan(height: int = 12, width: int = 16, coils: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An image with phase, sensitivities (C, H, W) whose squares sum to 1, a mask, and the measured k-space."""
    generator = torch.Generator().manual_seed(coils)
    small = torch.randn(1, coils, 2, 3, 2, generator=generator)
    smooth = [torch.nn.functional.interpolate(part, (height, width), mode="bicubic")[0] for part in small.unbind(-1)]
    maps = torch.complex(*smooth)
    maps = maps / maps.abs().square().sum(0).sqrt()
    image = blocks(height, width) * torch.exp(1j * torch.linspace(0, 1, width))
    mask = torch.from_numpy(
        Equispaced(acceleration=3, center_fraction=0.2).sample((height, width), np.random.default_rng(0))
    )
    return image, maps, mask, forward(image, maps, mask)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mirrored_point_is_that_of_minus_k(shape: tuple[int, int]) -> None:
    rows, columns = (np.arange(n) - n // 2 for n in shape)
    frequency = torch.from_numpy(rows[:, None] * 100.0 + columns[None])
    opposite = mirrored(frequency)
    inside = mirrored(torch.ones(shape, dtype=torch.bool))
    assert torch.equal(opposite[inside], -frequency[inside])
    assert not opposite[~inside].any()
    expected = [[-r in rows and -c in columns for c in columns] for r in rows]
    assert inside.tolist() == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_conjugate_filling_restores_an_image_without_phase_from_half_of_its_samples(shape: tuple[int, int]) -> None:
    image = blocks(*shape).to(torch.complex128)
    half = torch.ones(shape, dtype=torch.bool)
    half[:, shape[1] // 2 + 1 :] = False
    half[0] = half[:, 0] = True  # no partner on the grid
    kspace = fft2c(image) * half
    assert (ifft2c(kspace).abs() - image.real).abs().max() > 0.1
    torch.testing.assert_close(conjugate_filled(kspace, half), image.real)


def test_conjugate_filling_keeps_what_was_measured_and_invents_nothing_else() -> None:
    mask = torch.from_numpy(Equispaced(acceleration=4, center_fraction=0.1).sample((16, 16), np.random.default_rng(1)))
    kspace = fft2c(blocks(16, 16).to(torch.complex64)) * mask
    known = mask | mirrored(mask)
    torch.testing.assert_close(conjugate_filled(kspace, mask), ifft2c(fft2c(blocks(16, 16) + 0j) * known).abs())
    assert effective_acceleration(mask.numpy()) == measured_acceleration(known.numpy())


def test_the_effective_acceleration_counts_conjugate_partners_once() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:, [2, 4, 5]] = True  # about the centre 4: partners 6, itself, 3
    assert measured_acceleration(mask) == 8 / 3
    known = 7 * 5 + 3  # the first row has no partners
    assert effective_acceleration(mask) == 64 / known
    assert effective_acceleration(np.ones((8, 8), bool)) == 1


def dense(maps: Tensor, mask: Tensor) -> Tensor:
    """The matrix of A, column by column."""
    size = mask.numel()
    points = torch.eye(size, dtype=maps.dtype).reshape(size, *mask.shape)
    return forward(points, maps.expand(size, *maps.shape), mask.expand(size, *mask.shape)).reshape(size, -1).T


def test_sense_is_the_regularised_least_squares_image() -> None:
    image, maps, mask, kspace = scan()
    matrix = dense(maps.to(torch.complex128), mask)
    normal = matrix.mH @ matrix + CG_WEIGHT * torch.eye(mask.numel())
    expected = torch.linalg.solve(normal, matrix.mH @ kspace.flatten().to(torch.complex128)).reshape(mask.shape).abs()
    found = sense(kspace, maps, mask)
    assert (found - expected).norm() < 0.02 * expected.norm()
    aliased = adjoint(kspace, maps, mask).abs()
    assert (found - image.abs()).norm() < 0.25 * (aliased - image.abs()).norm()


def energy(image: Tensor, kspace: Tensor, maps: Tensor, mask: Tensor, weight: float) -> float:
    """||A x - y||^2 / 2 + w TV(x), written out."""
    down, right = image.new_zeros(image.shape), image.new_zeros(image.shape)
    down[:-1], right[:, :-1] = image[1:] - image[:-1], image[:, 1:] - image[:, :-1]
    variation = (down.abs() ** 2 + right.abs() ** 2).sqrt().sum()
    return float((forward(image, maps, mask) - kspace).abs().square().sum() / 2 + weight * variation)


def test_total_variation_reaches_the_minimum_of_its_energy() -> None:
    """A single coil of sensitivity 1 and no phase: the image itself is real, so that its magnitude has its energy."""
    image = blocks(16, 16).to(torch.complex64)
    maps, generator = torch.ones(1, 16, 16, dtype=torch.complex64), torch.Generator().manual_seed(1)
    mask = torch.rand(16, 16, generator=generator) < 0.4
    mask = mask | mirrored(mask)
    mask[7:10, 7:10] = True
    kspace = forward(image, maps, mask)
    weight = TV_WEIGHT * float(adjoint(kspace, maps, mask).abs().max())
    found = total_variation(kspace, maps, mask)
    best = energy(found + 0j, kspace, maps, mask, weight)
    assert best < energy(adjoint(kspace, maps, mask), kspace, maps, mask, weight)
    for step in range(20):
        nearby = found + 0.02 * torch.randn(16, 16, generator=generator.manual_seed(step))
        assert energy(nearby + 0j, kspace, maps, mask, weight) > best
    assert (found - image.abs()).norm() < 0.3 * (adjoint(kspace, maps, mask).abs() - image.abs()).norm()


@pytest.mark.parametrize("method", [sense, total_variation])
def test_slices_are_reconstructed_each_by_itself_and_in_their_own_units(method: object) -> None:
    assert callable(method)
    _, maps, mask, kspace = scan()
    other = kspace.flip(-2)
    both = method(torch.stack((kspace, 1000 * other)), torch.stack((maps, maps)), torch.stack((mask, mask)))
    torch.testing.assert_close(both[0], method(kspace, maps, mask), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[1] / 1000, method(other, maps, mask), rtol=1e-4, atol=1e-4)
    assert not method(torch.zeros_like(kspace), maps, mask).any()
