"""fedsim doctor: whether this machine can run fedsim."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from fedsim.cli.common import out
from fedsim.core.errors import RunError
from fedsim.core.terminal import print_whole
from fedsim.engine.place.cores import cores_here, quotas

_GB = 1e9


def doctor() -> None:
    """Check that this machine can run fedsim: versions, cores, GPUs, memory, disk, and Ray itself."""
    table, healthy = check()
    print_whole(table, out)
    if not healthy:
        raise RunError("something above needs attention")


def check() -> tuple[Table, bool]:
    """The table of checks, and whether all passed."""
    table = Table("", "what", "found")
    healthy = True
    for name, look in _CHECKS.items():
        try:
            found, well = look()
        except Exception as error:
            found, well = f"{type(error).__name__}: {error}", False
        table.add_row("[green]ok" if well else "[red]!", name, found)
        healthy &= well
    return table, healthy


def _versions() -> tuple[str, bool]:
    packages = ("fedsim", "ray", "torch", "numpy", "h5py", "pandas", "pyarrow")
    python = sys.version.split()[0]
    found = [f"python {python}", *(f"{name} {version(name)}" for name in packages)]
    return ", ".join(found), sys.version_info >= (3, 11)


def _cores() -> tuple[str, bool]:
    quota = min(quotas(), default=None)
    allowed = "" if quota is None else f" (its CPU quota is {quota:g})"
    return f"{cores_here()} of {os.cpu_count()} for this job{allowed}; as many clients train at once", True


def _gpus() -> tuple[str, bool]:
    import torch

    from fedsim.engine.place.gpus import driver_version, gpus_here, gpus_text

    return gpus_text(gpus_here(), driver_version(), torch.version.cuda), True


def _memory() -> tuple[str, bool]:
    import psutil

    free = psutil.virtual_memory().available
    return f"{free / _GB:.1f} GB free: about {int(free / 0.2e9)} actors of a small network", free > 1 * _GB


def _disk() -> tuple[str, bool]:
    free = shutil.disk_usage(Path.cwd()).free
    return f"{free / _GB:.1f} GB free in {Path.cwd()}", free > 1 * _GB


def _cache() -> tuple[str, bool]:
    import platformdirs

    cache = platformdirs.user_cache_path("fedsim")
    cache.mkdir(parents=True, exist_ok=True)
    return str(cache), os.access(cache, os.W_OK)


def _ray() -> tuple[str, bool]:
    import ray

    from fedsim.engine.place.labels import labels_text
    from fedsim.engine.place.machine import nodes_of
    from fedsim.engine.ray.backend import RayBackend
    from fedsim.workload.engine import Engine

    backend = RayBackend(Engine())
    try:
        labels = labels_text(nodes_of(ray)[0].labels) or "no labels"
        found = f"starts, {backend.slots()} slots, {labels}, on loopback, with a token"
        return found, os.environ.get("RAY_AUTH_MODE") == "token"
    finally:
        backend.close()


_CHECKS: dict[str, Callable[[], tuple[str, bool]]] = {
    "versions": _versions,
    "cores": _cores,
    "GPUs": _gpus,
    "memory": _memory,
    "disk": _disk,
    "cache": _cache,
    "Ray": _ray,
}
