"""Control groups: what a container, or a job of SLURM, allows its processes."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where control groups are mounted, and the file that names this process's groups below it."""
_LIMITS = ("memory.max", "memory.limit_in_bytes")
_KILLS = ("memory.events", "memory.oom_control")


def groups(controller: str, cgroups: Path = CGROUPS, own: Path = OWN) -> Iterator[Path]:
    """Folders of the groups that this process is in, those above a group included.

    Args:
        controller: `cpu` or `memory`.
        cgroups: Where control groups are mounted, version 1 or 2; a container sees its own group there.
        own: The file that names this process's groups below it.
    """
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in (*lines, "0::/", f"1:{controller}:/"):
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            mount = cgroups / controllers
            group = mount / path.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def memory_limit(cgroups: Path = CGROUPS, own: Path = OWN) -> float:
    """The least memory that a group of this process may use [bytes]; infinite if none has a limit."""
    texts = [_text(group / name) for group in groups("memory", cgroups, own) for name in _LIMITS]
    return min((float(text) for text in texts if text.isdigit()), default=math.inf)


def memory_kills(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """How many processes of this process's own group were killed at its limit, ever."""
    for group in groups("memory", cgroups, own):
        for name in _KILLS:
            found = re.search(r"(?m)^oom_kill (\d+)$", _text(group / name))
            if found:
                return int(found[1])
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
