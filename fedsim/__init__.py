"""fedsim: Ray-based simulation of federated MR image reconstruction."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsim.engine.record.run_directory import Run
    from fedsim.engine.simulation import run
    from fedsim.jobs.library import collect, submit, wait
    from fedsim.workload.reading import load_workload

__all__ = ["Run", "collect", "load_workload", "run", "submit", "wait"]

_HOMES = {
    "Run": "fedsim.engine.record.run_directory",
    "run": "fedsim.engine.simulation",
    "load_workload": "fedsim.workload.reading",
    "submit": "fedsim.jobs.library",
    "wait": "fedsim.jobs.library",
    "collect": "fedsim.jobs.library",
}


def __getattr__(name: str) -> object:
    """Import torch and the rest only when they are asked for, so that `fedsim --help` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedsim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
