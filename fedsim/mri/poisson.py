"""Variable-density Poisson-disc sampling on a grid, by throwing darts in a random order."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_SATURATED = 0.7  # points per squared distance that fit when darts are thrown at random
_LOOSE, _TIGHTER = 1.1, 0.95  # the first distance, relative to that, and the factor from one to the next
_INNER = 0.3  # distance at the centre, relative to that at the end of an axis


@lru_cache(maxsize=128)  # a client's masks are drawn again in every round
def poisson_disc(
    shape: tuple[int, int], wanted: int, rows: tuple[int, int], columns: tuple[int, int], seed: int
) -> NDArray[np.bool_]:
    """A mask (H, W) with `wanted` points: a sampled rectangle, and points outside it that keep a distance.

    The distance grows linearly from the centre. Darts are thrown in one random order of the grid's points, at smaller
    and smaller distances until all points fit (Poisson disc; Cook, ACM Trans Graph 5:51, 1986).

    Args:
        shape: H, W.
        wanted: Number of points.
        rows: [start, stop) of the sampled rectangle.
        columns: [start, stop) of the sampled rectangle.
        seed: Of the order.
    """
    rng = np.random.default_rng(seed)
    centre = np.zeros(shape, dtype=bool)
    centre[slice(*rows), slice(*columns)] = True
    order = rng.permutation(np.flatnonzero(~centre))
    y, x = np.meshgrid(*((np.arange(n) - n // 2) / (n / 2) for n in shape), indexing="ij")
    distance = _INNER + (1 - _INNER) * np.hypot(y, x)
    outside = max(0, wanted - int(centre.sum()))
    scale = _LOOSE * np.sqrt(_SATURATED * np.sum(distance**-2) / max(1, outside))
    while len(points := _thrown(order, distance * scale, outside)) < outside:
        scale *= _TIGHTER
    centre.ravel()[points] = True
    centre.setflags(write=False)
    return centre


def _thrown(order: NDArray[np.intp], radius: NDArray[np.float64], most: int) -> list[int]:
    """The first `most` points of `order` with no earlier one nearer than their radius (H, W), in pixels."""
    reach = int(np.ceil(radius.max()))
    blocked = np.zeros([side + 2 * reach for side in radius.shape], dtype=bool)
    grid = np.arange(-reach, reach + 1)
    squared = grid[:, None] ** 2 + grid**2
    found: list[int] = []
    for at in order.tolist():
        row, column = divmod(at, radius.shape[1])
        if len(found) == most:
            break
        if not blocked[row + reach, column + reach]:
            found.append(at)
            own = int(np.ceil(radius[row, column]))
            near = slice(reach - own, reach + own + 1)
            window = (
                slice(row + reach - own, row + reach + own + 1),
                slice(column + reach - own, column + reach + own + 1),
            )
            blocked[window] |= squared[near, near] < radius[row, column] ** 2
    return found
