"""What a run would have: cores, memory, GPUs and disks, of this machine or of the Ray cluster it is connected to."""

import math
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from fedsim.engine.place.cores import cores_here
from fedsim.engine.place.placement import Node, granted
from fedsim.workload.engine import Engine
from fedsim.workload.schema import Workload

RAY_COUNTS = 0.7
"""Of a node's memory, as memory for actors; the rest is the object store's."""
_RAY_RAISES_TO = 65536  # open files
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Disk:
    """A disk that a folder lies on."""

    folder: Path
    free: float
    """Free space [bytes]."""
    number: int = 0
    """Folders on disks of the same number share the free space."""


@dataclass(frozen=True)
class NodeCapacity:
    """A node with resources that Ray does not count."""

    node: Node
    memory: float
    """Total memory [bytes]; of another node, what was free when Ray started there."""
    scratch: Disk | None = None
    """Disk of the scratch folder; None if it was not examined."""
    name: str = "this machine"
    """Name for messages."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The nodes, the driver's first, and the disks that the driver writes to."""

    rooms: tuple[NodeCapacity, ...]
    cache: Disk
    out: Disk
    out_bytes: float
    """Size of checkpoints that are in the run directory already [bytes]."""
    open_files: int
    """Files that a process with clients may have open."""


def machine_of(workload: Workload, out: Path, *, look: bool = False) -> Machine:
    """The Ray cluster that this process is connected to; this machine if it is connected to none or needs none.

    Args:
        workload: Says which backend, and where scratch and cache are.
        out: The run directory, which need not exist.
        look: Look at the scratch folders of other nodes too, which takes a second.
    """
    ray = sys.modules.get("ray")
    connected = workload.engine.backend == "ray" and ray is not None and ray.is_initialized()
    scratch = workload.engine.scratch or Path(tempfile.gettempdir())
    rooms = _rooms_of(ray, workload.engine, scratch, look) if connected else (_this_machine(workload, scratch),)
    files = _open_files(raised=workload.engine.backend == "ray")
    kept = sum(file.stat().st_size for file in out.glob("checkpoints/**/*.safetensors"))
    disks = {"cache": disk_of(workload.federation.cache), "out": disk_of(out)}
    return Machine(rooms=rooms, **disks, out_bytes=kept, open_files=files)


def disk_of(folder: Path) -> Disk:
    """The disk that a folder lies on, or will lie on."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return Disk(folder, shutil.disk_usage(there).free, there.stat().st_dev)


def _this_machine(workload: Workload, scratch: Path) -> NodeCapacity:
    memory = memory_here()
    node = Node("", cores_here(), torch.cuda.device_count(), RAY_COUNTS * memory, gpu_memory=_gpu_memory())
    node = granted(workload.engine, [node])[0] if workload.engine.backend == "ray" else node
    return NodeCapacity(node, memory, disk_of(scratch))


def memory_here() -> float:
    """Of this machine or of the container that this process is in [bytes]."""
    limits = [file.read_text().strip() for file in _CGROUP if file.is_file()]
    return float(min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdigit())]))


def _open_files(raised: bool) -> int:
    """The limit of this process, or what Ray makes of it."""
    soft, hard = (sys.maxsize if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    return max(soft, min(hard, _RAY_RAISES_TO)) if raised else soft


def _rooms_of(ray: Any, engine: Engine, scratch: Path, look: bool) -> tuple[NodeCapacity, ...]:  # noqa: ANN401 - the module ray
    """The nodes of a cluster that the run may use."""
    here = ray.get_runtime_context().get_node_id()
    known = {node["NodeID"]: node for node in ray.nodes()}
    nodes = granted(engine, nodes_of(ray))
    others = [node.id for node in nodes if node.id != here]
    disks = {here: disk_of(scratch), **(_disks_of(ray, scratch, others) if look else {})}
    return tuple(_room(node, known[node.id], disks.get(node.id), node.id == here) for node in nodes)


def nodes_of(ray: Any) -> list[Node]:  # noqa: ANN401 - the module ray
    """The nodes of the cluster that are alive and have cores, this process's first."""
    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    alive.sort(key=lambda node: (node["NodeID"] != here, node["NodeID"]))
    return [_node(node["NodeID"], node["Resources"], node["NodeID"] == here) for node in alive]


def _node(name: str, has: dict[str, float], here: bool) -> Node:
    """A node of the cluster; of another one it is only known whether torch was built for GPUs."""
    cuda = torch.cuda.is_available() if here else torch.version.cuda is not None
    memory = _gpu_memory() if here else math.inf
    return Node(name, has["CPU"], has.get("GPU", 0), has.get("memory", 0), cuda, memory)


def _gpu_memory() -> float:
    """Of the smallest GPU of this machine [bytes]."""
    gpus = range(torch.cuda.device_count())
    return float(min((torch.cuda.get_device_properties(gpu).total_memory for gpu in gpus), default=math.inf))


def _room(node: Node, known: dict[str, Any], scratch: Disk | None, here: bool) -> NodeCapacity:
    memory = memory_here() if here else node.memory + known["Resources"].get("object_store_memory", 0)
    return NodeCapacity(node, memory, scratch, known["NodeManagerHostname"])


def _disks_of(ray: Any, scratch: Path, nodes: list[str]) -> dict[str, Disk]:  # noqa: ANN401 - the module ray
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    look = ray.remote(num_cpus=0)(disk_of)
    asked = [look.options(scheduling_strategy=affinity(node, soft=False)).remote(scratch) for node in nodes]
    return dict(zip(nodes, ray.get(asked), strict=True))
