"""What a run's last bits may depend on: library versions and the machine."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def provenance() -> dict[str, str]:
    """Versions of Python and the libraries, system, processor and number of cores, by name."""
    packages = ("fedsim", "ray", "torch", "numpy", "h5py", "scikit-image")
    return {
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
