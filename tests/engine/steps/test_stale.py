"""Late uploads are moved block by block; the bits are those of the formula for whole vectors."""

import math

import numpy as np

from fedsim.algorithms.base import Phase, Received, ServerState
from fedsim.engine.steps.stale import Stale, rebased

SIZE = 40_000  # several blocks, the last of them shorter
NOW = 3


def test_blocks_give_the_bits_of_whole_vectors() -> None:
    rng = np.random.default_rng(5)
    states: dict[int, ServerState] = {
        version: {"shared": rng.standard_normal(SIZE).astype(np.float32)} for version in range(NOW + 1)
    }
    clients = [Stale(0.3, 0.7, 0), Stale(0.2, 0.5, 2), Stale(0.1, 0.7, 0), Stale(0.4, 1.0, NOW)]
    total = rng.standard_normal(SIZE)
    sums = {"shared": total.copy(), "own": total}
    received = Received(phase=Phase(("A",), "train"), sums=sums, weight=1.0, collected={}, population=4)
    moved = rebased(received, clients, NOW, states).sums
    present = states[NOW]["shared"].astype(np.float64)
    expected = total + math.fsum(one.weight * (1 - one.factor) for one in clients) * present
    for version, weight in ((0, math.fsum([0.3 * 0.7, 0.1 * 0.7])), (2, 0.2 * 0.5)):
        expected += weight * (present - states[version]["shared"])
    np.testing.assert_array_equal(moved["shared"], expected)
    np.testing.assert_array_equal(moved["own"], sums["own"])
    np.testing.assert_array_equal(sums["shared"], total)
