"""The GPUs of this machine, as torch and their driver describe them."""

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fedsim.core.text import bytes_text

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """A GPU."""

    name: str
    memory: float
    """Memory [bytes]; infinite if it is not known."""

    def __str__(self) -> str:
        name = self.name or "GPU"
        return f"{name} with {bytes_text(self.memory)}" if math.isfinite(self.memory) else name


def gpus_here() -> list[Gpu]:
    """The GPUs of this machine that torch can use."""
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [Gpu(properties.name, float(properties.total_memory)) for properties in found]


def hidden_text() -> str:
    """What hides GPUs from this process, for a message that one is missing; empty if nothing does."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if shown is None else f" (here CUDA_VISIBLE_DEVICES={shown!r:.40} hides all others)"


def driver_version(file: Path = _DRIVER) -> str:
    """The version of NVIDIA's driver; empty if there is none."""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", file.read_text() if file.is_file() else "")
    return found[0] if found else ""


def software_text(driver: str, cuda: str | None) -> str:
    """Versions of what uses GPUs; empty if torch is built without CUDA."""
    return f"driver {driver or 'unknown'}, torch {torch.__version__} for CUDA {cuda}" if cuda else ""


def gpus_text(gpus: Sequence[Gpu], driver: str, cuda: str | None) -> str:
    """The GPUs of a machine in one line, or why torch can use none.

    Args:
        gpus: Those that torch can use.
        driver: Version of the driver; empty if there is none.
        cuda: Version of CUDA that torch is built for; None: for none.
    """
    kinds = ", ".join(f"{count} x {gpu}" for gpu, count in Counter(map(str, gpus)).items())
    if gpus:
        return f"{kinds}; {software_text(driver, cuda)}"
    if driver and cuda is None:
        return (
            f"none that torch {torch.__version__} can use: it is built without CUDA, and driver {driver} is installed"
        )
    return f"none that torch {torch.__version__} can use: clients train on the CPU"
