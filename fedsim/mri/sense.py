"""Images of several coils by regularised least squares: (A^H A + w) x = b, with A of `fedsim.mri.coils`."""

from typing import Any

import torch
from torch import Tensor

from fedsim.mri.coils import adjoint, forward


def solve(right: Tensor, weight: Tensor, maps: Tensor, mask: Tensor, steps: int) -> Tensor:
    """The image x (B, H, W) complex of (A^H A + weight) x = right, by conjugate gradients from 0.

    The gradient is that of the exact solution, by a second solve; it needs no memory for the steps.

    Args:
        right: b (B, H, W) complex; A^H y for the least-squares image of k-space y.
        weight: w > 0, (1,); of the squared norm of x.
        maps: Sensitivities (B, C, H, W) complex.
        mask: (B, H, W) bool.
        steps: Of conjugate gradients; a fixed number, so that results do not depend on how fast it converges.
    """
    image: Tensor = _Solution.apply(right, weight, maps, mask, steps)  # type: ignore[no-untyped-call]
    return image


class _Solution(torch.autograd.Function):
    """x = M^-1 b; for an adjoint g: db = M^-1 g, dw = -Re <M^-1 g, x>. M is Hermitian."""

    generate_vmap_rule = True
    steps: int
    """Of conjugate gradients."""

    @staticmethod
    def forward(right: Tensor, weight: Tensor, maps: Tensor, mask: Tensor, steps: int) -> Tensor:
        return _conjugate_gradients(right, weight, maps, mask, steps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401 - torch's
        _, weight, maps, mask, ctx.steps = inputs
        ctx.save_for_backward(output, weight, maps, mask)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        image, weight, maps, mask = ctx.saved_tensors
        found = _conjugate_gradients(gradients[0], weight, maps, mask, ctx.steps)
        return found, -_inner(found, image).sum().reshape(weight.shape), None, None, None


def _conjugate_gradients(right: Tensor, weight: Tensor, maps: Tensor, mask: Tensor, steps: int) -> Tensor:
    image, residual, direction = torch.zeros_like(right), right, right
    energy = _inner(residual, residual)
    for _ in range(steps):
        applied = adjoint(forward(direction, maps, mask), maps, mask) + weight * direction
        step = energy / _positive(_inner(direction, applied))
        image, residual = image + step * direction, residual - step * applied
        before, energy = energy, _inner(residual, residual)
        direction = residual + energy / _positive(before) * direction
    return image


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Real part of the inner product of each pair of images (B, H, W): (B, 1, 1)."""
    return (a.conj() * b).real.sum((-2, -1), keepdim=True)


def _positive(value: Tensor) -> Tensor:
    """Kept from 0: once it has converged, further steps change nothing."""
    return value.clamp_min(torch.finfo(value.dtype).tiny)
