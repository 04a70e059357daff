"""What a run's last bits may depend on: library versions and the machine."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from fedsim.engine.place.gpus import driver_version
from fedsim.workload.engine import Engine

PACKAGES = ("fedsim", "ray", "torch", "numpy", "h5py", "scikit-image")


def provenance(engine: Engine) -> dict[str, str]:
    """Versions of Python and the libraries, system, processor and number of cores, by name; and those of a GPU.

    Args:
        engine: Says whether clients may train on one, and with which kernels.
    """
    return {
        **{package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        **(_gpu(engine) if torch.cuda.is_available() and engine.device != "cpu" else {}),
    }


def _gpu(engine: Engine) -> dict[str, str]:
    """Names of this machine's GPUs, driver and libraries, and which kernels they may use."""
    names = sorted({torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())})
    return {
        "gpu": ", ".join(names),
        "driver": driver_version() or "unknown",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "kernel_choice": "deterministic" if engine.deterministic else "any",
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _processor() -> str:
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
