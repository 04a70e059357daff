"""Draws docs/images/architecture.svg from the imports of fedsim's files: python docs/make_architecture.py."""

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

import grimp

# Rooms from the ground up: a room may import only rooms that stand before it.
ROOMS = (
    "core",
    "mri",
    "data",
    "models",
    "algorithms",
    "workload",
    "engine",
    "analysis",
    "study",
    "report",
    "jobs",
    "cli",
)
Import = tuple[str, str]


def imports() -> set[Import]:
    """Every import of one of fedsim's files by another, wherever in the file it stands: (importer, imported)."""
    graph = grimp.build_graph("fedsim", cache_dir=None)
    return {(file, other) for file in graph.modules for other in graph.find_modules_directly_imported_by(file)}


def room(file: str) -> str:
    """The room of a file; fedsim/__init__.py, the door, has none."""
    return file.split(".")[1] if "." in file else ""


def upward(found: Iterable[Import]) -> set[Import]:
    """Imports of a room that stands later, or of the door, which may import everything."""
    height = {name: number for number, name in enumerate(ROOMS)} | {"": len(ROOMS)}
    return {(a, b) for a, b in found if height[room(b)] > height[room(a)]}


def circle(found: Iterable[Import]) -> list[str]:
    """A circle of files that import each other, or nothing."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for importer, imported in found:
        sorter.add(importer, imported)
    try:
        sorter.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
