"""The speed of order-free sums on one core, compared with simpler sums and a copy of the same float32 vectors.

    python benchmarks/aggregate.py [--mb 1.2 18.8] [--repeats 11]

    order-free   OrderFreeSum.add: each term on a grid, in float64, checked for its range
    fold         the same float64 sum in blocks, without grid and checks
    axpy         a float32 sum, a += w * b
    memcpy       a copy

GB of float32 input per second of CPU time: medians and ranges over repetitions. In each, every kernel makes one pass
over the same 512 MB of vectors, so that they come from memory and not from a cache. The ratios are of times, relative
to axpy and memcpy in the same repetition. One JSON line for each, then a table.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.engine.host.sums import OrderFreeSum, largest

Row = dict[str, Any]
Vector = NDArray[np.float32]
Kernel = Callable[[Vector], object]
POOL = 512e6  # bytes
BLOCK = 1 << 14  # elements
WEIGHT = 1e-3


def fold(total: NDArray[np.float64], vector: Vector) -> None:
    """A weighted float64 sum, block by block."""
    term = np.empty(BLOCK)
    for start in range(0, vector.size, BLOCK):
        block = total[start : start + BLOCK]
        block += np.multiply(vector[start : start + BLOCK], WEIGHT, out=term[: block.size], dtype=np.float64)


def add(total: OrderFreeSum, vector: Tensor) -> None:
    """As a host does: the check, then the sum."""
    total.add(vector, WEIGHT, total.check(vector, largest(vector), WEIGHT, "benchmark"))


def kernels(size: int) -> dict[str, Kernel]:
    """Every kernel, each with a separate total or target, for vectors (size,)."""
    order_free, wide = OrderFreeSum(size), np.zeros(size)
    narrow, copy = torch.zeros(size), np.zeros(size, np.float32)
    return {
        "order-free": lambda vector: add(order_free, torch.from_numpy(vector)),
        "fold": lambda vector: fold(wide, vector),
        "axpy": lambda vector: narrow.add_(torch.from_numpy(vector), alpha=WEIGHT),
        "memcpy": lambda vector: np.copyto(copy, vector),
    }


def seconds(kernel: Kernel, vectors: list[Vector]) -> float:
    """CPU time of all vectors."""
    begun = time.process_time()
    for vector in vectors:
        kernel(vector)
    return time.process_time() - begun


def measure(megabytes: float, repeats: int) -> Iterator[Row]:
    """A result for each kernel at one size of vectors."""
    size = round(megabytes * 1e6 / 4)
    generator = np.random.default_rng(0)
    vectors = [generator.normal(0, 0.05, size).astype(np.float32) for _ in range(max(2, round(POOL / size / 4)))]
    tasks = kernels(size)
    turns = [{name: seconds(task, vectors) for name, task in tasks.items()} for _ in range(repeats + 1)][1:]
    gigabytes = sum(vector.nbytes for vector in vectors) / 1e9
    for name in tasks:
        speeds = [gigabytes / turn[name] for turn in turns]
        ratios = {f"to_{floor}": statistics.median(t[name] / t[floor] for t in turns) for floor in ("axpy", "memcpy")}
        yield {
            "mb": megabytes,
            "what": name,
            "gb_per_s": statistics.median(speeds),
            "low": min(speeds),
            "high": max(speeds),
            **ratios,
        }


def table(rows: list[Row]) -> str:
    """The results as a table."""
    lines = [f"{'MB':>5} {'':<10} {'GB/s':>6} {'range':>13} {'time / axpy':>11} {'time / memcpy':>13}"]
    for row in rows:
        head = f"{row['mb']:>5.1f} {row['what']:<10} {row['gb_per_s']:>6.2f}"
        span = f"{row['low']:.2f} - {row['high']:.2f}"
        lines.append(f"{head} {span:>13} {row['to_axpy']:>11.2f} {row['to_memcpy']:>13.2f}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", nargs="+", type=float, default=[1.177632, 18.838656], help="sizes of the vectors")
    parser.add_argument("--repeats", type=int, default=11)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for megabytes in given.mb:
        for row in measure(megabytes, given.repeats):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
