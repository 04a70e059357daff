"""Number of cores that this process may use, as Ray would count them."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores_here() -> int:
    """Number of cores that CPU affinity and a container's quota leave to this process; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([cores, *quotas()])))


def quotas(cgroups: Path = _CGROUPS, own: Path = _OWN) -> Iterator[float]:
    """CPU quotas [cores] of the control groups that this process is in; none for a group without a limit.

    Args:
        cgroups: Where control groups are mounted, version 1 or 2; a container sees its own group there.
        own: The file that names this process's groups below it.
    """
    for group in _groups(cgroups, own):
        for quota, period in (("cpu.max", "cpu.max"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with suppress(OSError, ValueError, IndexError):  # "max", or a file that this version lacks
                cores = float((group / quota).read_text().split()[0]) / float((group / period).read_text().split()[-1])
                if cores > 0:  # -1: no limit
                    yield cores


def _groups(cgroups: Path, own: Path) -> Iterator[Path]:
    """Folders of the groups, those above a group included."""
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in ("0::/", "1:cpu:/", *lines):
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            mount = cgroups / controllers
            group = mount / path.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))
