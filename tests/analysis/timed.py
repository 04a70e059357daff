"""Ledgers with simulated time, made from numbers."""

from typing import Any

import numpy as np
import pandas as pd

TURNS = [
    (1, "A", 0, 10, 0, "trained"), (1, "B", 0, 20, 0, "trained"),
    (2, "A", 20, 30, 0, "trained"), (2, "C", 0, 30, 1, "trained"),
    (3, "A", 30, 40, 0, "trained"), (3, "B", 20, 40, 1, "trained"),
]  # fmt: skip
"""Buffers of two from three clients that take 10, 20 and 30 s: round, client, begin, end, staleness, outcome."""


def clients_of(turns: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows like those of clients.parquet."""
    columns = ["round", "client", "virtual_begin_s", "virtual_end_s", "staleness", "outcome"]
    return pd.DataFrame(turns, columns=columns)


def rounds_of(ends: list[float], psnr: list[float]) -> pd.DataFrame:
    """Rows like those of rounds.parquet: a million bytes each way in every round."""
    return pd.DataFrame({
        "round": range(1, len(ends) + 1), "virtual_s": ends, "psnr": psnr, "seconds": 0.5,
        "uplink_bytes": 1_000_000, "downlink_bytes": 1_000_000,
    })  # fmt: skip


def curve(method: str, seed: int, ends: list[float], psnr: list[float], regime: str = "all") -> pd.DataFrame:
    """Rows like those of curves.parquet, of four clients that send two million bytes in a round together."""
    return pd.DataFrame({
        "regime": regime, "method": method, "seed": seed, "round": range(1, len(ends) + 1), "psnr": psnr, "ssim": 0.8,
        "bytes": 2_000_000 * np.arange(1, len(ends) + 1), "clients": 4, "virtual_s": ends,
    })  # fmt: skip


def three_modes() -> pd.DataFrame:
    """Curves over three seeds: buffers are twice as fast as rounds, and a deadline misses the quality with seed 3.

    98 % of the best of synchronous with seed s is 0.98 (30 + s), reached in its third round.
    """
    rows = []
    for seed in (1, 2, 3):
        best, missed = 30.0 + seed, seed == 3
        rows.append(curve("synchronous", seed, [100, 200, 300, 400], [best - 4, best - 2, best - 0.5, best]))
        rows.append(curve("buffered", seed, [50, 100, 150 + seed, 200], [best - 4, best - 2, best - 0.5, best]))
        rows.append(curve("deadline", seed, [60, 120, 180, 240], [best - 4, best - 2, best - 1.5, best - 2 * missed]))
    return pd.concat(rows, ignore_index=True)
