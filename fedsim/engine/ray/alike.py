"""Whether the nodes of a cluster have the software of the driver, and its time.

Ray itself refuses a node with another Ray or Python. An actor runs the fedsim that is installed on its node, and what
it computes depends on its libraries: a node with another fedsim is refused, and one with other libraries, whose last
bits may differ, is named. Clocks only matter to the times in the ledger.
"""

import hashlib
import importlib.util
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from fedsim.core.errors import RunError
from fedsim.core.text import duration
from fedsim.engine.place.node import Node
from fedsim.engine.ray.head import Head
from fedsim.engine.record.provenance import PACKAGES

log = logging.getLogger("fedsim")

_APART_S = 2.0
"""Difference between two clocks that is worth a word."""
_RUNS = ("core", "mri", "data", "models", "algorithms", "workload", "engine")
"""The rooms of fedsim that an actor runs."""


class Software(NamedTuple):
    """What a process would run."""

    versions: Mapping[str, str]
    """Of the installed packages, by name."""
    source: str
    """A digest of fedsim's files, which change without its version while it is developed; empty if it is absent."""
    now: float
    """Its clock [s since 1970]."""


def check_alike(ray: Any, head: Head, nodes: Iterable[Node]) -> None:  # noqa: ANN401 - the module ray
    """Compare the software and the clocks of nodes with those of this process.

    Raises:
        RunError: a node has another fedsim, or none.
    """
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    look = _looking()
    remote, named = ray.remote(num_cpus=0)(look), list(nodes)
    pinned = [remote.options(scheduling_strategy=affinity(node.id, soft=False)) for node in named]
    begun = [(time.time(), task.remote(PACKAGES, _RUNS)) for task in pinned]
    ours = Software(*look(PACKAGES, _RUNS))
    for node, (before, asked) in zip(named, begun, strict=True):
        theirs = Software(*head.get(asked))
        _check_software(node.name, ours, theirs)
        _check_clock(node.name, theirs.now, before, time.time())


def _looking() -> Callable[[Iterable[str], Iterable[str]], tuple[dict[str, str], str, float]]:
    """The function that asks; made here so that it is sent as code: the fedsim of a node may lack it."""

    def look(packages: Iterable[str], folders: Iterable[str]) -> tuple[dict[str, str], str, float]:
        versions = {}
        for name in packages:
            with suppress(metadata.PackageNotFoundError):
                versions[name] = metadata.version(name)
        found, digest = importlib.util.find_spec("fedsim"), hashlib.sha256()
        if found is None or found.origin is None:
            return versions, "", time.time()
        top = Path(found.origin).parent
        for path in sorted(path for folder in folders for path in (top / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(top)}\n".encode() + path.read_bytes())
        return versions, digest.hexdigest(), time.time()

    return look


def _check_software(node: str, ours: Software, theirs: Software) -> None:
    if not theirs.source:
        raise RunError(f"node {node} has no fedsim in the environment that its Ray was started in; install it there")
    other = {name: theirs.versions.get(name, "none") for name in ours.versions}
    listed = ", ".join(f"{name} {it} and not {ours.versions[name]}" for name, it in other.items()
                       if it != ours.versions[name])  # fmt: skip
    if ours.source != theirs.source:
        raise RunError(
            f"node {node} has another fedsim than the driver ({listed or 'other files of the same version'}); "
            "install the same on all nodes, and continue with --resume"
        )
    if listed:
        log.warning("node %s has %s: install the same on all nodes, or last bits may differ", node, listed)


def _check_clock(node: str, theirs: float, before: float, after: float) -> None:
    apart = max(before - theirs, theirs - after)
    if apart > _APART_S:
        log.warning(
            "node %s: its clock differs from the driver's by %s, and its times in clients.parquet are wrong by as much",
            node, duration(apart),
        )  # fmt: skip
