"""Time to quality of several methods in simulated time: as a table and in sentences."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import numpy as np
import pandas as pd

from fedsim.analysis.patients import FEWEST_SUBJECTS
from fedsim.analysis.virtual_time import SHARE, as_methods, has_virtual_time, over_seeds, time_to_quality
from fedsim.core.text import bytes_text, precise_duration
from fedsim.report.overview import Cell, Column
from fedsim.report.wording import CI, Row, chance, verdict

FOLDED = "The time to quality is left out: its intervals are over seeds, and here every seed has several folds."
"""Why it is not told."""


@dataclass(frozen=True)
class Times:
    """When methods reached a share of the reference's best validation PSNR."""

    curves: pd.DataFrame  # rows of curves.parquet
    reached: pd.DataFrame  # from `over_seeds`; empty without simulated time
    reference: str

    @property
    def of_best(self) -> str:
        """What is reached, in words."""
        return f"{100 * SHARE:g} % of {self.reference}'s best validation PSNR"

    def columns(self) -> list[Column]:
        """The table, one row per regime and method."""
        rows = self.reached.to_dict("records")
        keys = ["regime"] * (self.reached["regime"].nunique() > 1) + ["method"]
        columns = {
            **{key: [(str(row[key]), str(row[key])) for row in rows] for key in keys},
            "PSNR [dB]": [(f"{row['target']:.2f}", row["target"]) for row in rows],
            "reached by": [(f"{row['reached']} of {row['seeds']} seeds", row["reached"]) for row in rows],
            f"simulated time [{CI}]": [(_time(row), row["mean"]) for row in rows],
            "sent per client": [(_known(row["bytes"], bytes_text), row["bytes"]) for row in rows],
            f"times as fast as {self.reference} [{CI}]": [(_speed_up(row), row["speed_up"]) for row in rows],
            "p (Holm)": [(chance(row["p_holm"]), row["p_holm"]) for row in rows],
            "whole run": [(precise_duration(row["end_s"]), row["end_s"]) for row in rows],
        }
        return [
            Column(head, tuple(starmap(Cell, cells))) for head, cells in columns.items() if any(t for t, _ in cells)
        ]

    def sentences(self) -> Iterator[str]:
        """What the table says of every method but the reference, and of a reference that did not always get there."""
        for row in self.reached.to_dict("records"):
            who = f"{row['regime']}: {row['method']}" if self.reached["regime"].nunique() > 1 else str(row["method"])
            if row["reached"] < row["seeds"]:
                within = f"within {precise_duration(row['end_s'])} of simulated time"
                yield f"{who} reaches {self.of_best} with {row['reached']} of {row['seeds']} seeds {within}"
            elif row["method"] != self.reference:
                yield f"{who} reaches {self.of_best} {self._compared(row)}"

    def _compared(self, row: Row) -> str:
        parts = [f"after {precise_duration(row['mean'])} of simulated time"]
        if np.isfinite(row["speed_up"]):
            parts.append(f"{row['speed_up']:.2f} times as fast as {self.reference}")
        if np.isfinite(row["speed_up_low"]):
            ends = f"[{row['speed_up_low']:.2f}, {row['speed_up_high']:.2f}]"
            parts += [f"{CI} {ends}", verdict(row["p_holm"], row["tests"], row["seeds"], FEWEST_SUBJECTS)]
        return ", ".join(parts)


def times_of(curves: pd.DataFrame, axes: Mapping[str, Mapping[str, Any]], reference: str) -> Times:
    """The time to quality of a study, or of runs.

    Args:
        curves: Rows of curves.parquet.
        axes: By regime, the values of the keys that the study varies, by dotted key; empty for runs.
        reference: The method that others are compared with.
    """
    if not has_virtual_time(curves):
        return Times(curves, pd.DataFrame(), reference)
    known, against = as_methods(curves, axes, reference)
    return Times(known, over_seeds(time_to_quality(known, against), against), against)


def _time(row: Row) -> str:
    mean = _known(row["mean"], precise_duration)
    ends = (precise_duration(row[end]) if row[end] > 0 else "below 0" for end in ("low", "high"))
    return f"{mean} [{', '.join(ends)}]" if np.isfinite(row["low"]) else mean


def _speed_up(row: Row) -> str:
    mean = _known(row["speed_up"], "{:.2f}".format)
    ends = f"{row['speed_up_low']:.2f}, {row['speed_up_high']:.2f}"
    return f"{mean} [{ends}]" if np.isfinite(row["speed_up_low"]) else mean


def _known(value: float, told: Callable[[float], str]) -> str:
    return told(value) if np.isfinite(value) else ""
