"""Whether a method's clients train as one network where `training.fuse` is above 1: its code says so."""

import ast
import inspect
import textwrap

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Algorithm


def one_by_one(algorithm: Algorithm, cohort: tuple[str, ...], seed: int = 0) -> str:
    """Why a method's clients train one by one; empty if they train as one network.

    Args:
        algorithm: Settled.
        cohort: The clients of a round.
        seed: The workload's.

    Raises:
        MethodError: it raises, or gives no phases.
    """
    if any(_steps_on_a_loss(kind) for kind in type(algorithm).__mro__ if issubclass(kind, Algorithm)):
        return "its steps have a loss of their own"
    if algorithm.pools_data or all(len(phase.clients) == 1 for phase in hooks.phases(algorithm, cohort, 1, seed)):
        return "one client trains at a time"
    return ""


def _steps_on_a_loss(kind: type) -> bool:
    """Whether the code of a class calls `step` with `loss=...`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except OSError:  # typed into an interpreter
        return False
    steps = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "step"]
    return any(keyword.arg == "loss" for step in steps for keyword in step.keywords)
