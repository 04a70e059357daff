"""The numbers at the head of a run's report: zero-filled against reconstructed, and every other reconstruction."""

import math
from typing import Any

import pandas as pd

from fedsim.analysis.scores import by_reconstruction
from fedsim.engine.record.ledger import row_key
from fedsim.report.wording import AXIS_LABELS, number

_MOST_ROWS = 60  # clients; of more, sites are listed
_MOST_LISTED = 256  # sites; of more, the first ones
_QUALITY = ("nmse", "psnr", "ssim")


def headline_rows(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Zero-filled and reconstructed: a row per client, or per site if clients are many, and the mean over all."""
    if frame.empty:
        return None
    key = row_key(frame, _MOST_ROWS)
    rows = [_row(str(name), group) for name, group in frame.groupby(key, sort=False)]
    mean = _row(f"mean over {key}s", frame.groupby(key).mean(numeric_only=True))
    return {
        "key": key, "rows": rows[:_MOST_LISTED], "count": len(rows), "mean": mean | {"volumes": len(frame)},
        "within": sum(row["within_subject"] for row in rows),
        "worse": [row["name"] for row in rows if any(row["worse"].values())],
        "beside": _beside(frame, key),
        **{column: frame[column].iloc[0] for column in ("split", "round", "protocol")},
    }  # fmt: skip


def _beside(frame: pd.DataFrame, key: str) -> dict[str, Any]:
    """Every reconstruction of an evaluation by every quality, as text: heads, and rows of cells."""
    table = by_reconstruction(frame, key)
    qualities = list(table.columns[2:])
    rows = [
        (str(row["name"]), str(row["volumes"]), *(number(row[quality], quality) for quality in qualities))
        for row in table.to_dict("records")
    ]
    return {"heads": [AXIS_LABELS[quality] for quality in qualities], "rows": rows}


def _row(name: str, volumes: pd.DataFrame) -> dict[str, Any]:
    columns = [prefix + quality for prefix in ("zf_", "") for quality in _QUALITY]
    mean = {column: float(volumes[column].mean()) for column in columns}
    gain = {quality: _gain(mean[quality], mean[f"zf_{quality}"]) for quality in _QUALITY}
    worse = {quality: value > 0 if quality == "nmse" else value < 0 for quality, value in gain.items()}
    within = bool(volumes["within_subject"].any())
    return {"name": name, "volumes": len(volumes), **mean, "gain": gain, "worse": worse, "within_subject": within}


def _gain(ours: float, zero_filled: float) -> float:
    return ours - zero_filled if math.isfinite(zero_filled) else math.nan
