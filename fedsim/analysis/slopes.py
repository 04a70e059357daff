"""How a quantity changes along an axis: its slope for every seed, so that what varies between seeds makes the interval.

Seeds are repetitions, the values under one seed are not; a line through all of them would count each of them as one. So
every seed is summed up by the slope of its own least-squares line (Matthews et al., BMJ 300:230, 1990).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
FEWEST_VALUES = 3
"""Values of x that a slope needs: between two, every quantity is a line."""


def slopes(table: pd.DataFrame, x_of: Callable[[Numbers], Numbers]) -> "pd.Series[float]":
    """Slope of the least-squares line of every column.

    Args:
        table: One row per value of x, one column per seed; a seed that lacks a value is left out.
        x_of: What the index is on the line's axis.

    Returns:
        In the table's unit per unit of x, by seed; empty for fewer than FEWEST_VALUES values.
    """
    whole = table.dropna(axis=1)
    if len(whole) < FEWEST_VALUES:
        return pd.Series(dtype=float)
    x = x_of(whole.index.to_numpy(np.float64))
    apart = x - x.mean()
    return whole.T @ pd.Series(apart / (apart @ apart), whole.index)


def per_decade(table: pd.DataFrame) -> "pd.Series[float]":
    """Slopes against the decimal logarithm of the index, which must be positive: the change per factor of ten."""
    return slopes(table, np.log10)


def exponents(table: pd.DataFrame) -> "pd.Series[float]":
    """The exponents a of y = c x^a, from lines through logarithms; x and y must be positive."""
    return per_decade(table.where(table > 0).apply(np.log10))


def away_from(base: float) -> Callable[[Numbers], Numbers]:
    """What places values by their distance from one of them."""
    return lambda values: np.abs(values - base)
