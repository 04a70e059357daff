"""After which rounds a run writes a checkpoint, and after which every client must be where the server is."""

import math

from fedsim.workload.schema import Workload


def is_due(workload: Workload, round_: int) -> bool:
    """Whether a round is one of those that `engine.checkpoint_every` names."""
    every = workload.engine.checkpoint_every
    return bool(every) and round_ % every == 0


def level_after(workload: Workload, round_: int) -> int:
    """The first round from this one on that validates, writes a checkpoint, or is the last."""
    often = filter(None, (workload.metrics.every, workload.engine.checkpoint_every))
    due = [math.ceil(round_ / every) * every for every in often]
    return min([workload.training.rounds, *due])
