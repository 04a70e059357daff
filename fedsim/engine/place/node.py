"""A node of the cluster with its resources."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedsim.engine.place.labels import selects
from fedsim.workload.resources import Resources

RAY_COUNTS = 0.7
"""Share of a node's memory that Ray counts as memory for actors; the rest is for the object store."""
SMALLEST_SHARE = 1e-4  # of a GPU, that Ray can tell from none
CUDA_BYTES = 1e9
"""Memory of a GPU that a process takes before it trains anything: CUDA, cuDNN and cuBLAS with their workspaces."""
GPU_USABLE = 0.95
"""Share of a GPU's memory that a run may take."""
_UNKNOWN = 16e9  # bytes that a GPU of another node has at least; Ray does not say


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
    gpu_name: str = ""
    """What its GPUs are; empty if it is not known."""
    gpu_memory: float = math.inf
    """Memory of its smallest GPU [bytes]; infinite if it is not known."""
    scratch: Disk | None = None
    """Disk of the scratch folder; None if it was not examined."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray's labels of the node, as far as they are known."""
    unknown_labels: str | None = None
    """Beginning of the keys that it may have besides, before Ray runs there; empty: any key; None: none."""

    def carries(self, needs: Resources) -> bool:
        """Whether it has the labels that clients ask for, or may have them once Ray runs there."""
        return all(
            selects(selector, self.labels.get(key)) or (key not in self.labels and self._may_have(key))
            for key, selector in (needs.labels or {}).items()
        )

    def _may_have(self, key: str) -> bool:
        return self.unknown_labels is not None and key.startswith(self.unknown_labels)

    def slots(self, needs: Resources, threads: int, share: float | None = None) -> int:
        """How many actors whose clients have such needs can train here at once; where any can, at least one.

        Args:
            needs: What a client asks for.
            threads: Cores of one that asks for none.
            share: The share of a GPU that each must have; None: they train on the CPU.
        """
        cores = max(1, math.floor(self.cpus / (needs.cpus or threads)))
        return cores if share is None else min(cores, self.gpu_actors(share))

    def gpu_share(self, needs: Resources, gpu_bytes: float) -> float:
        """The least share of a GPU that an actor must have here: what is asked for, or more if its memory needs more.

        0 if none is asked for; never more than one GPU for the sake of memory.
        """
        share = math.ceil(min(1.0, gpu_bytes / self.gpu_usable) / SMALLEST_SHARE) * SMALLEST_SHARE
        return share if needs.gpus is None else needs.gpus and max(needs.gpus, share)

    def gpu_actors(self, share: float) -> int:
        """How many actors with such a share of a GPU it holds; Ray gives a part of one GPU, or whole ones."""
        whole = math.floor(self.gpus)
        return (whole // math.ceil(share) if share >= 1 else whole * int(1 / share)) if share else 0

    @property
    def gpu_usable(self) -> float:
        """Memory of a GPU that a run may take [bytes]; a guess if it is not known."""
        return GPU_USABLE * self.gpu_memory if math.isfinite(self.gpu_memory) else _UNKNOWN
