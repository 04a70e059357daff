"""Resources of a run: cores, memory, GPUs and disks of this machine or of the Ray cluster it is connected to."""

import math
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from fedsim.engine.place.cgroups import memory_limit
from fedsim.engine.place.cores import cores_here
from fedsim.engine.place.gpus import Gpu, gpus_here
from fedsim.engine.place.labels import OF_RAY
from fedsim.engine.place.node import RAY_COUNTS, Disk, Node
from fedsim.engine.place.placement import granted
from fedsim.workload.schema import Workload

_RAY_RAISES_TO = 65536  # open files


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The nodes, the driver's first, and the disks that the driver writes to."""

    nodes: tuple[Node, ...]
    """The driver's first."""
    cache: Disk
    """Disk of the cache of shards."""
    out: Disk
    """Disk of the run directory."""
    out_bytes: float
    """Size of the checkpoints already in the run directory [bytes]."""
    open_files: int
    """Number of files that a process with clients may have open."""


def machine_of(workload: Workload, out: Path, *, look: bool = False) -> Machine:
    """The Ray cluster that this process is connected to, or this machine if there is none or the run needs none.

    Args:
        workload: Names the backend, the scratch folder and the cache.
        out: The run directory, which need not exist.
        look: Whether to examine the scratch disks of other nodes too, which takes a second.
    """
    ray = sys.modules.get("ray")
    connected = workload.engine.backend == "ray" and ray is not None and ray.is_initialized()
    scratch = workload.engine.scratch or Path(tempfile.gettempdir())
    nodes = _nodes(ray, workload, scratch, look) if connected else (_this_machine(workload, scratch),)
    files = _open_files(raised=workload.engine.backend == "ray")
    files_there = map(Path.stat, out.glob("checkpoints/**/*.safetensors"))
    kept = sum({(file.st_dev, file.st_ino): file.st_size for file in files_there}.values())  # some share a file
    disks = {"cache": disk_of(workload.federation.cache), "out": disk_of(out)}
    return Machine(nodes=nodes, **disks, out_bytes=kept, open_files=files)


def disk_of(folder: Path) -> Disk:
    """The disk that a folder lies on, or will lie on."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return Disk(folder, shutil.disk_usage(there).free, there.stat().st_dev)


def _this_machine(workload: Workload, scratch: Path) -> Node:
    memory, gpu = memory_here(), _gpu_here()
    node = Node(
        id="", cpus=cores_here(), gpus=torch.cuda.device_count(), actor_memory=RAY_COUNTS * memory,
        total_memory=memory, gpu_name=gpu.name, gpu_memory=gpu.memory, scratch=disk_of(scratch), unknown_labels=OF_RAY,
    )  # fmt: skip
    return granted(workload.engine, [node])[0] if workload.engine.backend == "ray" else node


def memory_here() -> float:
    """Memory of this machine, or what a container or a job of it may use [bytes]."""
    return min(psutil.virtual_memory().total, memory_limit())


def _open_files(raised: bool) -> int:
    """This process's limit of open files, or the one that Ray raises it to."""
    soft, hard = (sys.maxsize if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    return max(soft, min(hard, _RAY_RAISES_TO)) if raised else soft


def _nodes(ray: Any, workload: Workload, scratch: Path, look: bool) -> tuple[Node, ...]:  # noqa: ANN401 - the module
    """The nodes of a cluster that the run may use, with their scratch disks."""
    here = ray.get_runtime_context().get_node_id()
    nodes = granted(workload.engine, nodes_of(ray), workload.federation.kinds_of_needs, early=True)
    others = [node.id for node in nodes if node.id != here]
    disks = {here: disk_of(scratch), **(_disks_of(ray, scratch, others) if look else {})}
    return tuple(replace(node, scratch=disks.get(node.id)) for node in nodes)


def nodes_of(ray: Any) -> list[Node]:  # noqa: ANN401 - the module ray
    """The nodes of the cluster that are alive and have cores, this process's first."""
    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    alive.sort(key=lambda node: (node["NodeID"] != here, node["NodeID"]))
    return [_node(node, node["NodeID"] == here) for node in alive]


def _node(known: dict[str, Any], here: bool) -> Node:
    """A node as Ray describes it; of another node than the driver's, only torch's build tells whether GPUs work."""
    has = known["Resources"]
    actor_memory = has.get("memory", 0)
    gpu = _gpu_here() if here else Gpu(_accelerator(has), math.inf)
    return Node(
        id=known["NodeID"],
        name=known["NodeManagerHostname"],
        cpus=has["CPU"],
        gpus=has.get("GPU", 0),
        actor_memory=actor_memory,
        total_memory=memory_here() if here else actor_memory + has.get("object_store_memory", 0),
        cuda=torch.cuda.is_available() if here else torch.version.cuda is not None,
        gpu_name=gpu.name,
        gpu_memory=gpu.memory,
        labels=known.get("Labels") or {},
    )


def _gpu_here() -> Gpu:
    """The smallest GPU of this machine; nameless if torch can use none."""
    return min(gpus_here(), key=lambda gpu: gpu.memory, default=Gpu("", math.inf))


def _accelerator(resources: Mapping[str, float]) -> str:
    """Ray's name of a node's GPUs; empty if it has none."""
    prefix = "accelerator_type:"
    return next((name.removeprefix(prefix) for name in resources if name.startswith(prefix)), "")


def _disks_of(ray: Any, scratch: Path, nodes: list[str]) -> dict[str, Disk]:  # noqa: ANN401 - the module ray
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    look = ray.remote(num_cpus=0)(disk_of)
    asked = [look.options(scheduling_strategy=affinity(node, soft=False)).remote(scratch) for node in nodes]
    return dict(zip(nodes, ray.get(asked), strict=True))
