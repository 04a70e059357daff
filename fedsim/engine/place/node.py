"""A node of the cluster with its resources."""

import math
from dataclasses import dataclass
from pathlib import Path

from fedsim.workload.resources import Resources

SMALLEST_SHARE = 1e-4  # of a GPU, that Ray can tell from none
_GPU_PROCESS = 1e9  # bytes of a GPU that an actor takes at least: CUDA itself, and a small network at work


@dataclass(frozen=True)
class Disk:
    """A disk that a folder lies on."""

    folder: Path
    free: float
    """Free space [bytes]."""
    number: int = 0
    """Folders on disks of the same number share the free space."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster with its resources; cores, GPUs and memory for actors are as Ray counts them."""

    id: str
    """Ray's id of the node; any distinct text before the cluster exists."""
    name: str = "this machine"
    """Name for messages."""
    cpus: float
    """Cores; may be fractional."""
    gpus: float = 0.0
    """Number of GPUs; may be fractional."""
    actor_memory: float
    """Memory that actors may reserve [bytes]."""
    total_memory: float
    """All memory [bytes]; of another node than the driver's, what was free when Ray started there."""
    cuda: bool = True
    """Whether torch can use its GPUs, as far as the driver can tell."""
    gpu_memory: float = math.inf
    """Memory of its smallest GPU [bytes]; infinite if it is not known."""
    scratch: Disk | None = None
    """Disk of the scratch folder; None if it was not examined."""

    def slots(self, needs: Resources, threads: int, on_gpus: bool) -> int:
        """How many clients with such needs can train here at once; where any can, at least one."""
        cores = max(1, math.floor(self.cpus / (needs.cpus or threads)))
        whole, share = math.floor(self.gpus), needs.gpus  # Ray gives a part of one GPU, or whole ones
        if not on_gpus:
            return cores
        if share is None:
            return min(cores, self.gpu_actors)
        return 0 if not share else whole // math.ceil(share) if share >= 1 else whole * math.floor(1 / share)

    @property
    def gpu_actors(self) -> int:
        """How many actors the memory of its GPUs holds."""
        return math.floor(self.gpus) * max(1, int(min(1 / SMALLEST_SHARE, self.gpu_memory / _GPU_PROCESS)))
