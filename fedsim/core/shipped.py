"""Folders that travel with the package: cluster files and starter workloads."""

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).parents[1]


def shipped(name: Literal["clusters", "workloads"]) -> Path:
    """A folder of the project: inside an installed package, beside the package in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
