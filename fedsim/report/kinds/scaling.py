"""Strong and weak scaling: the time of a round on increasing numbers of cores or nodes."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedsim.analysis.scaling_law import ScalingLaw, efficiencies, serial_shares, speed_ups, unit_of
from fedsim.report.kinds.base import Found, StudyKind
from fedsim.report.scaling_figures import scaling_figures


class ScalingKind(StudyKind):
    """Speed-up and efficiency of the engine and of a bare training loop."""

    most_pictured = 1  # the others have the same, or more of the same

    def __init__(self, law: ScalingLaw, description: str) -> None:
        self._law, self.description = law, description

    def axes(self, points: pd.DataFrame) -> list[str]:
        """Cores or nodes."""
        return [unit_of(points)]

    def figures(self, found: Found) -> Iterator[tuple[str, Figure]]:
        """Time, speed-up and efficiency, and where the time went."""
        return scaling_figures(found.points, self._law, found.reference)

    def measured(self, points: pd.DataFrame) -> pd.DataFrame:
        """The points with `speed_up` and `efficiency`, each seed relative to its own first."""
        unit, known = unit_of(points), []
        for method, own in points.groupby("method", sort=False):
            gains = speed_ups(own, self._law, "round_seconds")
            both = pd.DataFrame({"speed_up": gains.stack(), "efficiency": efficiencies(gains).stack()}).reset_index()
            known.append(both.assign(method=method))
        return points.merge(pd.concat(known), on=[unit, "seed", "method"], how="left")

    def findings(self, found: Found, quality: str) -> Iterator[str]:
        """Speed-up, efficiency and serial share of each method, and of the bare loop."""
        return _of_scaling(found.points, self._law, quality)


def _of_scaling(points: pd.DataFrame, law: ScalingLaw, quality: str) -> Iterator[str]:
    unit = unit_of(points)
    for method, own in points.groupby("method", sort=False):
        gains = speed_ups(own, law, "round_seconds")
        if len(gains) < 2:
            yield f"{method}: one number of {unit}, so there is no speed-up"
            continue
        most, share = gains.index[-1], efficiencies(gains).iloc[-1].mean()
        what = "times the work per second" if law.work_grows else "times as fast"
        first = f"{most:g} {unit} against {gains.index[0]:g}"
        yield f"{method}: {gains.iloc[-1].mean():.2f} {what} on {first}, efficiency {100 * share:.0f} %"
        yield f"{method}: serial share by {law.author}'s law {_shares(serial_shares(own, law, 'round_seconds'))}"
        if not law.work_grows:
            yield _same_answer(own, str(method), unit, quality)
    if points["floor_seconds"].isna().all():
        yield "no bare training loop beside the runs: it trains on the CPU, one client at a time, in float32"
    elif floor := serial_shares(points, law, "floor_seconds"):
        yield f"the bare training loop: {_shares(floor)}; any excess over this is due to the engine"


def _shares(shares: list[float]) -> str:
    over = f" ({100 * min(shares):.1f} to {100 * max(shares):.1f} % over {len(shares)} seeds)" * (len(shares) > 1)
    return f"{100 * float(np.mean(shares)):.1f} %{over}"


def _same_answer(own: pd.DataFrame, method: str, unit: str, quality: str) -> str:
    """Whether the number of workers changed a result: it must not."""
    differing = own.groupby("seed")[quality].nunique().gt(1)
    seeds = ", ".join(str(seed) for seed in differing.index[differing])
    name = quality.upper()
    if seeds:
        return f"{method}: the test {name} is NOT the same on all numbers of {unit} for seed {seeds}"
    return f"{method}: the same test {name} to the last digit on every number of {unit}"
