"""Number of cores that this process may use, as Ray would count them."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fedsim.engine.place.cgroups import CGROUPS, OWN, groups


def cores_here() -> int:
    """Number of cores that CPU affinity and a container's quota leave to this process; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([cores, *quotas()])))


def quotas(cgroups: Path = CGROUPS, own: Path = OWN) -> Iterator[float]:
    """CPU quotas [cores] of the control groups that this process is in; none for a group without a limit.

    Args:
        cgroups: Where control groups are mounted, version 1 or 2; a container sees its own group there.
        own: The file that names this process's groups below it.
    """
    for group in groups("cpu", cgroups, own):
        for quota, period in (("cpu.max", "cpu.max"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with suppress(OSError, ValueError, IndexError):  # "max", or a file that this version lacks
                cores = float((group / quota).read_text().split()[0]) / float((group / period).read_text().split()[-1])
                if cores > 0:  # -1: no limit
                    yield cores
