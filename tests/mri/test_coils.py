"""The coil operators by their laws: adjointness, projection, energy."""

import pytest
import torch
from torch import Tensor

from fedsim.mri.coils import (
    adjoint,
    calibration,
    combined,
    compressed,
    compression,
    estimated_maps,
    forward,
    normalised,
    rss,
)
from fedsim.mri.fft import fft2c

SHAPES = [(4, 16, 12), (1, 9, 15), (7, 32, 8)]


def drawn(*shape: int, seed: int = 0, kind: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(*shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def sampled(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(9)) < 0.4


def loops(coils: int, height: int, width: int) -> Tensor:
    """Smooth complex sensitivities (coils, H, W) of unit energy."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    angle = 2 * torch.pi * torch.arange(coils)[:, None, None] / coils
    distance = (x - 1.3 * angle.cos()) ** 2 + (y - 1.3 * angle.sin()) ** 2
    return normalised(torch.polar(torch.exp(-distance / 2), 0.5 * (x * angle.sin() - y)).to(torch.complex64))


@pytest.mark.parametrize("shape", SHAPES)
def test_adjoint_of_the_forward_operator(shape: tuple[int, ...]) -> None:
    """<A x, y> = <x, A^H y>."""
    maps, mask = normalised(drawn(2, *shape)), sampled(2, *shape[1:])
    x, y = drawn(2, *shape[1:], seed=1), drawn(2, *shape, seed=2)
    left, right = (
        torch.vdot(forward(x, maps, mask).flatten(), y.flatten()),
        torch.vdot(x.flatten(), adjoint(y, maps, mask).flatten()),
    )
    assert abs(left - right) < 1e-6 * abs(left)


@pytest.mark.parametrize("shape", SHAPES)
def test_fully_sampled_the_adjoint_is_the_inverse(shape: tuple[int, ...]) -> None:
    """A^H A = 1 where sum_c |S_c|^2 = 1 and nothing is left out."""
    maps, mask = normalised(drawn(*shape)), torch.ones(shape[1:], dtype=torch.bool)
    x = drawn(*shape[1:], seed=1)
    torch.testing.assert_close(adjoint(forward(x, maps, mask), maps, mask), x)


def test_the_normal_operator_does_not_amplify() -> None:
    maps, mask, x = normalised(drawn(4, 16, 12)), sampled(16, 12), drawn(16, 12, seed=1)
    seen = forward(x, maps, mask)
    assert seen.norm() <= x.norm()
    assert not seen[:, ~mask].any()


def test_unmeasured_samples_do_not_matter() -> None:
    maps, mask, y = normalised(drawn(4, 16, 12)), sampled(16, 12), drawn(4, 16, 12, seed=1)
    torch.testing.assert_close(adjoint(y, maps, mask), adjoint(y * mask, maps, mask), rtol=0, atol=0)


def test_root_sum_of_squares_and_combination() -> None:
    maps, x = normalised(drawn(5, 8, 8)), drawn(8, 8, seed=1)
    torch.testing.assert_close(rss(maps * x), x.abs())
    torch.testing.assert_close(combined(maps * x, maps), x)


def test_normalised_maps_have_unit_energy_where_there_is_signal() -> None:
    images = drawn(3, 8, 8)
    images[:, :2] = 0
    energy = normalised(images).abs().square().sum(0)
    torch.testing.assert_close(energy, (images.abs().sum(0) > 0).to(energy))


def test_compression_keeps_the_strongest() -> None:
    """Orthonormal rows; all coils lose nothing, and fewer keep as much as any other matrix of that size."""
    kspace = compressed(drawn(3, 3, 20, 30), drawn(6, 3, seed=1)) + 0.01 * drawn(3, 6, 20, 30, seed=2)
    matrix = compression(kspace, 3)
    torch.testing.assert_close(matrix @ matrix.mH, torch.eye(3, dtype=kspace.dtype))
    centre = calibration(kspace)
    kept = compressed(centre, matrix).norm() / centre.norm()
    other = torch.linalg.qr(drawn(6, 3, seed=3))[0].mH
    assert kept > 0.999
    assert kept > compressed(centre, other).norm() / centre.norm()
    torch.testing.assert_close(rss(compressed(kspace, compression(kspace, 6))), rss(kspace))


def test_compression_does_not_depend_on_the_coils_common_phase() -> None:
    kspace = drawn(2, 4, 16, 16)
    turned = compressed(kspace * torch.polar(torch.ones(1), torch.tensor(1.0)), compression(kspace, 2))
    torch.testing.assert_close(rss(turned), rss(compressed(kspace, compression(kspace, 2))))


@pytest.mark.parametrize("side", [16, 64])
def test_estimated_maps_are_close_to_the_true_ones(side: int) -> None:
    """Up to the phase of the object, in which maps and image cannot be told apart."""
    maps = loops(6, side, side)
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    head = torch.exp(-2 * (x**2 + y**2)).to(torch.complex64)
    found = estimated_maps(fft2c(maps * head))
    inside = head.abs() > 0.5
    likeness = combined(maps, found).abs()[inside]
    assert likeness.min() > 0.99, "1 for equal maps of unit energy"


def test_where_no_coil_has_signal_gradients_are_zero() -> None:
    """Of the root sum of squares and of coils over it; elsewhere they are those of the plain formulas."""
    images = drawn(3, 4, 5)
    images[:, 1:3] = 0
    images.requires_grad_()
    total = images.abs().square().sum(-3).sqrt()
    assert torch.equal(rss(images), total)
    for found in (rss(images), normalised(images).real):
        (gradient,) = torch.autograd.grad((found * drawn(4, 5, seed=1).real).sum(), images)
        assert gradient.isfinite().all()
        assert not gradient[:, 1:3].any() or found.dim() == 3
    (gradient,) = torch.autograd.grad(rss(images)[0].sum(), images)
    torch.testing.assert_close(gradient[:, 0], (images / total)[:, 0].detach())
