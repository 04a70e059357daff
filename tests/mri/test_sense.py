"""Conjugate gradients equal a dense solve, in the image and in its gradients."""

import torch
from torch import Tensor

from fedsim.mri.coils import adjoint, forward, normalised
from fedsim.mri.sense import solve


def problem(coils: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Right side (2, 6, 5), weight (1,), maps and mask, in double precision."""
    generator = torch.Generator().manual_seed(coils)
    draw = torch.randn(2, 2, coils, 6, 5, dtype=torch.complex128, generator=generator)
    mask = torch.rand(2, 6, 5, generator=generator) < 0.5
    return draw[0, :, 0], torch.tensor([0.05], dtype=torch.float64), normalised(draw[1]), mask


def dense(right: Tensor, weight: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Each slice's system as a matrix."""
    pixels = torch.eye(30, dtype=right.dtype).reshape(30, 6, 5)
    images = []
    for b, own, measured in zip(right, maps, mask, strict=True):
        normal = adjoint(forward(pixels, own, measured), own, measured).reshape(30, 30).T
        images.append(torch.linalg.solve(normal + weight * torch.eye(30), b.flatten()).reshape(6, 5))
    return torch.stack(images)


def test_it_is_the_dense_solution_with_its_gradients() -> None:
    for coils in (1, 4):
        right, weight, maps, mask = problem(coils)
        found = []
        for call in (lambda *given: solve(*given, 40), dense):
            b, w = right.clone().requires_grad_(), weight.clone().requires_grad_()
            image = call(b, w, maps, mask)
            (image.abs() ** 3).sum().backward()
            found.append((image.detach(), b.grad, w.grad))
        torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-8)


def test_further_steps_change_nothing() -> None:
    """One coil of sensitivity 1 takes two steps; beyond them nothing divides by zero."""
    right, weight, maps, mask = problem(1)
    inputs = right, weight, torch.ones_like(maps), mask
    torch.testing.assert_close(solve(*inputs, 60), solve(*inputs, 2))
    assert torch.equal(solve(torch.zeros_like(right), weight, maps, mask, 5), torch.zeros_like(right))


def test_it_can_be_mapped() -> None:
    right, _, maps, mask = problem(3)
    weights = torch.tensor([[0.05], [0.5]], dtype=torch.float64, requires_grad=True)
    together = torch.func.vmap(lambda w: solve(right, w, maps, mask, 30))(weights)
    together.abs().sum().backward()
    for at in range(2):
        alone = weights.detach()[at].clone().requires_grad_()
        image = solve(right, alone, maps, mask, 30)
        torch.testing.assert_close(together[at], image)
        image.abs().sum().backward()
        torch.testing.assert_close(weights.grad[at], alone.grad)
