"""How much of all clients' private state a checkpoint holds, and how much of that it writes."""

from fedsim.engine.plan.times import checkpoints
from fedsim.engine.state.segments import share_files
from fedsim.workload.schema import Workload

_DEAD = 2.5  # times the present states, of files that clients share: what they hold after hundreds of partial rounds
_AGAIN = 9 / 8  # times what has trained, that a checkpoint writes where it gives files up


def held(workload: Workload, clients: int) -> float:
    """Size of the files of the last checkpoint, in units of all clients' private state.

    Args:
        workload: Settled.
        clients: Number of all clients, made or not.
    """
    if not share_files(clients):
        return 1.0
    trained, each = _trained_in(workload.training.rounds, workload, clients), written(workload, clients)
    return trained if each == trained else min(_DEAD * trained, _AGAIN * each * checkpoints(workload))


def written(workload: Workload, clients: int) -> float:
    """What a checkpoint after the first writes, in the same units; the first of a small federation writes all."""
    return _trained_in(workload.engine.checkpoint_every or workload.training.rounds, workload, clients)


def _trained_in(rounds: int, workload: Workload, clients: int) -> float:
    """Expected share of the clients that are drawn at least once in `rounds` rounds."""
    return 1 - (1 - min(workload.uploads, clients) / clients) ** rounds
