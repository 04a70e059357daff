"""What happens when a process that hosts clients dies.

`ray/backend.py` notices that an actor is gone and raises WorkerLostError; so does a client that takes too long. As the
workload sets, the run then continues with all clients, continues without the one that was being trained, or stops. It
continues from the last checkpoint (`state/snapshots.py`) after `Backend.start` has replaced what is missing, so its
result is identical to that of an undisturbed run.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from fedsim.core.errors import RunError, WorkerLostError
from fedsim.engine.record.failures import Action, Failure, Failures, Kind
from fedsim.engine.rounds import Rounds
from fedsim.workload.engine import Engine

log = logging.getLogger("fedsim")

T = TypeVar("T")


class Recovery:
    """Runs tasks that start from a checkpoint, and repeats them after a loss as often as the workload allows."""

    def __init__(self, engine: Engine, rounds: Rounds, failures: Failures, reached: Callable[[], int]) -> None:
        """Start without losses.

        Args:
            engine: How to respond to a loss.
            rounds: Know who is at work for which round and phase.
            failures: Where losses are recorded.
            reached: Returns the last round with a checkpoint.
        """
        self._engine, self._rounds, self._failures, self._reached = engine, rounds, failures, reached

    def attempt(self, task: Callable[[], T]) -> T:
        """Run a task that starts from a checkpoint; repeat it if a process is lost, as long as there is progress.

        Raises:
            RunError: the workload says to abort, or losses follow each other without a checkpoint between them.
        """
        losses, reached = 0, self._reached()
        while True:
            try:
                return task()
            except WorkerLostError as error:
                losses, reached = (losses if self._reached() == reached else 0), self._reached()
                action = self._answer(error, losses)
                losses += action == "replayed"
                round_, phase = self._rounds.at(error.client)
                kind: Kind = "late" if error.late else "lost"
                self._failures.note(
                    [
                        Failure(
                            round=round_, phase=phase, client=error.client, kind=kind, action=action, message=str(error)
                        )
                    ]
                )
                if action == "aborted":
                    raise RunError(f"a process was lost: {error}; continue with --resume") from error
                without = f" without client {error.client} in round {round_}" if action == "dropped" else ""
                log.warning("a process was lost: %s; continuing from round %d%s", error, reached, without)

    def _answer(self, error: WorkerLostError, losses: int) -> Action:
        """How to respond to a loss, given the number of losses without progress."""
        policy = self._engine.on_lost_process
        if policy == "drop" and error.client and self._rounds.spares(error.client):
            return "dropped"
        return "aborted" if policy == "abort" or losses >= self._engine.retries else "replayed"
