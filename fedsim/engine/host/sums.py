"""Sums that do not depend on the order or the grouping of their terms, bit for bit.

Every term is rounded to a grid of 2^-g before it is added in float64: with M = 1.5 * 2^(52 - g), (x + M) - M rounds x
to the grid, and sums of grid values are exact while they stay below 2^(51 - g). Exact sums are associative.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.errors import ClientError, DivergedError
from fedsim.engine.host.merging import ExactSum

_BLOCK = 1 << 14  # elements: the working set of a block stays in the L2 cache


class OrderFreeSum(ExactSum):
    """A running sum of vectors (P,) with weights; merging partial sums in any grouping gives the same bits."""

    def __init__(self, size: int, grid: int = 40) -> None:
        super().__init__(size, grid)
        self._size = size
        self._magic = 1.5 * 2.0 ** (52 - grid)
        self._term = np.empty(min(size, _BLOCK))

    def check(self, vector: Tensor, size: float, weight: float, owner: str) -> float:
        """The largest absolute value of weight * vector; refuses what `add` could not add.

        Args:
            vector: (P,).
            size: Its largest absolute value.
            weight: Its weight.
            owner: Client and round.

        Raises:
            DivergedError: the term has NaN, infinite or out-of-range values; names the owner.
            ClientError: the vector has another size than the others.
        """
        if vector.shape != (self._size,):
            others = f"where other clients returned {self._size}"
            raise ClientError(f"{owner}: train returned {vector.numel()} values {others}")
        bound = weight * size
        if not bound < self._limit:
            raise DivergedError(
                f"{owner}: sent NaN, infinite or too large values (beyond {self._limit:g}); lower its lr"
            )
        return bound

    def add(self, vector: Tensor, weight: float, bound: float) -> None:
        """Add weight * vector, whose largest absolute value `check` has found to be `bound`.

        Raises:
            DivergedError: the sum may leave the range in which it is exact.
        """
        self._grow(bound)
        values = vector.numpy()
        for start in range(0, values.size, _BLOCK):
            block = self._sum[start : start + _BLOCK]
            term = np.multiply(values[start : start + _BLOCK], weight, out=self._term[: block.size], dtype=np.float64)
            term += self._magic
            term -= self._magic
            block += term


class DeviceSum(OrderFreeSum):
    """A running sum on a GPU: the same operations in float64, and so the same bits."""

    def __init__(self, size: int, grid: int, device: torch.device) -> None:
        super().__init__(0, grid)
        self._size, self._there = size, torch.zeros(size, dtype=torch.float64, device=device)

    @property
    def total(self) -> NDArray[np.float64]:
        """The sum so far (P,), copied from the GPU."""
        return self._there.cpu().numpy()

    def add(self, vector: Tensor, weight: float, bound: float) -> None:
        """Add weight * vector; nothing waits for it.

        Raises:
            DivergedError: the sum may leave the range in which it is exact.
        """
        self._grow(bound)
        self._there += vector.double().mul_(weight).add_(self._magic).sub_(self._magic)


def largest(vector: Tensor | NDArray[np.float64]) -> float:
    """The largest absolute value (P,); NaN if one is."""
    if isinstance(vector, Tensor):
        return float(extent(vector))
    return float(max(vector.max(), -vector.min())) if vector.size else 0.0


def extent(vector: Tensor) -> float | Tensor:
    """The largest absolute value (P,); NaN if one is; on a GPU a scalar there, which nothing has waited for."""
    if vector.is_cuda:
        return vector.abs().max() if vector.numel() else 0.0
    return largest(vector.numpy())
