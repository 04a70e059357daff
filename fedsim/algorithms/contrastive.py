"""The mathematics of FedMRI's contrastive term: value and gradient by hand, block by block, without autograd.

Feng et al., IEEE TMI 42(7), 2023, doi 10.1109/TMI.2022.3202106. With an encoder theta (P,), the server's encoder srv
and the S encoders prev_k that last round's clients uploaded, the negatives:

    P = ||theta - srv||_1,  N = sum_k ||theta - prev_k||_1,  ratio = P / (N + 1e-14)
    d ratio / d theta = (sign(theta - srv) - ratio * dN / d theta) / (N + 1e-14),  the subgradient of |0| being 0

Exact form: dN / d theta = sum_k sign(theta - prev_k), from one read of all S encoders. Moment form, for many clients:
coordinate by coordinate the negatives are taken for Gaussian over clients, with mean m and deviation sd, so that by
E|X| of a normal X (the folded normal distribution) and with z = (theta - m) / sd

    N = S sum [sd sqrt(2 / pi) exp(-z^2 / 2) + (theta - m) erf(z / sqrt 2)],  dN / d theta = S erf(z / sqrt 2)

whose limit where sd = 0 is |theta - m| and sign(theta - m). It costs the same whatever S is. In both forms a client may
leave its own upload out: its distance and its sign are subtracted again.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Scalar = float | Tensor
"""A number: on the CPU a float, on a GPU a tensor of no dimensions, float64."""

_EPSILON = 1e-14
_CLIENTS = 16  # rows of a block; more rows of fewer coordinates would be read in shorter runs


def contrastive_ratio(theta: Tensor, server: Tensor, previous: Tensor) -> Tensor:
    """P / N, a scalar differentiable in theta (P,), for server (P,) and previous (S, P)."""
    ratio: Tensor = _ContrastiveRatio.apply(theta, server, previous)  # type: ignore[no-untyped-call]
    return ratio


class _ContrastiveRatio(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, server: Tensor, previous: Tensor) -> Tensor:  # noqa: ANN401
        ratio, gradient = ratio_and_gradient(theta, server, previous)
        ctx.save_for_backward(gradient)
        return torch.as_tensor(ratio).to(theta)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None


def ratio_and_gradient(
    theta: Tensor, server: Tensor, previous: Tensor, own: Tensor | None = None
) -> tuple[Scalar, Tensor]:
    """P / N and its gradient (P,) in theta; both zero where there is no negative, or none at any distance.

    Args:
        theta: Current encoder (P,).
        server: Encoder received from the server (P,).
        previous: Encoders uploaded in the last round (S, P).
        own: The one of them (P,) that is not to count; None: all count.
    """
    pull = torch.zeros_like(theta)
    far = _add_distance(theta, previous, pull)
    return _ratio(theta, server, far, pull, own)


def moment_ratio_and_gradient(
    theta: Tensor, server: Tensor, mean: Tensor, deviation: Tensor, clients: float, own: Tensor | None = None
) -> tuple[Scalar, Tensor]:
    """P / N and its gradient (P,) in theta, for negatives that are Gaussian over clients; as `ratio_and_gradient`.

    Args:
        theta: Current encoder (P,).
        server: Encoder received from the server (P,).
        mean: Mean over clients of the encoders uploaded in the last round (P,).
        deviation: Their standard deviation (P,); may be 0.
        clients: How many they are.
        own: The one of them (P,) that is not to count; None: all count.
    """
    pull = torch.empty_like(theta)
    far = _gaussian_distance(theta, mean, deviation, clients, pull)
    return _ratio(theta, server, far, pull, own)


def gaussian_deviation(drift: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation (P,) of encoders over clients, from their mean offsets and distances to a vector near them.

    With x the offset of a client, Gaussian over clients: (E|x|)^2 pi / 2 = sd^2 + (E x)^2 up to fourth order in
    E x / sd. Taken from |x| rather than from x^2, the deviation fits the term better, which is a sum of distances, and
    outliers weigh less (benchmarks/moment_error.py compares). It is too large, by up to 0.76 |E x|, where all clients
    have moved the same way.

    Args:
        drift: E x (P,).
        distance: E |x| (P,).
    """
    return np.sqrt(np.maximum(0.0, np.pi / 2 * np.square(distance) - np.square(drift)))


def _ratio(theta: Tensor, server: Tensor, far: Scalar, pull: Tensor, own: Tensor | None) -> tuple[Scalar, Tensor]:
    """Ratio and gradient from N = `far` and dN / d theta = `pull` (P,), less those of `own`; the gradient is `pull`."""
    if own is not None:
        far = far - _add_distance(theta, own[None], pull, -1)
    far = _denominator(far)
    length = _block(theta) // 4
    pairs = list(zip(torch.split(theta, length), torch.split(server, length), strict=True))
    ratio = sum(_scalar((ours - other).abs_().sum()) for ours, other in pairs) / far
    for (ours, other), out in zip(pairs, torch.split(pull, length), strict=True):
        sign = (ours - other).sign_()
        if isinstance(ratio, Tensor):
            torch.addcmul(sign, out, ratio.to(out), value=-1, out=out)
        else:
            torch.add(sign, out, alpha=-ratio, out=out)
        out.div_(far)
    return ratio, pull


def _scalar(value: Tensor) -> Scalar:
    """A scalar in float64; one on a GPU stays there, since reading it would wait for every kernel launched before."""
    return value.double() if value.is_cuda else float(value)


def _denominator(far: Scalar) -> Scalar:
    """N + 1e-14; infinite where there is no negative at any distance, so that ratio and gradient are zero."""
    if isinstance(far, Tensor):
        return torch.where(far > 0, far + _EPSILON, torch.inf)
    return far + _EPSILON if far > 0 else math.inf


def _add_distance(theta: Tensor, others: Tensor, pull: Tensor, times: float = 1) -> Scalar:
    """sum_k ||theta - others_k||_1 for others (S, P); `times` its gradient in theta is added to `pull` (P,).

    Every value of `others` is read from memory once; what is made of a block of them stays in the cache. Sums of signs
    are whole numbers and exact; distances are summed pairwise within a block and in float64 over blocks.
    """
    size, clients = theta.numel(), others.shape[0]
    if not clients:
        return 0.0
    rows = min(clients, _CLIENTS)
    columns = min(size, _block(theta) // max(rows, 1))
    scratch, ones = theta.new_empty(2, rows * columns), theta.new_ones(rows)
    total: Scalar = 0.0
    for start in range(0, size, columns):
        here, sums = theta[start : start + columns], pull[start : start + columns]
        for first in range(0, clients, rows):
            block = others[first : first + rows, start : start + columns]
            difference, sign = (part[: block.numel()].view(block.shape) for part in scratch)
            torch.sub(here, block, out=difference)
            torch.sign(difference, out=sign)
            sums.addmv_(sign.T, ones[: len(block)], alpha=times)
            total = total + _scalar(difference.abs_().sum())
    return total


def _gaussian_distance(theta: Tensor, mean: Tensor, deviation: Tensor, clients: float, pull: Tensor) -> Scalar:
    """`clients` times E ||theta - X||_1 for X (P,) of independent Gaussians; its gradient is written to `pull` (P,)."""
    smallest = torch.finfo(theta.dtype).tiny  # z is then infinite or 0 where the deviation is 0, as it should be
    length = _block(theta) // 4
    total: Scalar = 0.0
    for start in range(0, theta.numel(), length):
        part = slice(start, start + length)
        offset, spread = theta[part] - mean[part], deviation[part]
        z = offset / spread.clamp_min(smallest)
        sign = torch.erf(z * math.sqrt(0.5), out=pull[part])
        z.square_().mul_(-0.5).exp_().mul_(spread).addcmul_(offset, sign, value=math.sqrt(math.pi / 2))
        total = total + math.sqrt(2 / math.pi) * _scalar(z.sum())
        sign.mul_(clients)
    return clients * total


def _block(tensor: Tensor) -> int:
    """Elements of a block: 1 MB, the size of a core's second-level cache; elsewhere fewer calls matter more."""
    return 1 << (18 if tensor.device.type == "cpu" else 24)
