"""The timetable of a run in simulated time: a function of the workload, its seed and its clients, never of training."""

from collections import deque
from collections.abc import Iterator

from fedsim.algorithms.learner import Learner
from fedsim.core.errors import InputError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.cohorts import Cohorts
from fedsim.engine.clock.conditions import Conditions
from fedsim.engine.clock.draws import Draws
from fedsim.engine.clock.overlapping import Overlapping
from fedsim.engine.clock.turns import Step
from fedsim.engine.plan.sizes import traffic_of_zeros
from fedsim.workload.schema import Workload

MOST_AHEAD = 128
"""Steps that may be asked for before those in between are."""
_KEPT, _FEWEST = 200_000, MOST_AHEAD + 2  # turns, and steps


class Timetable:
    """The server's steps in order, computed as they are asked for."""

    def __init__(self, workload: Workload, clients: Clients, up: float, down: float) -> None:
        """The timetable of a workload that has the section `time`.

        Args:
            workload: Settled.
            clients: The federation's.
            up: Bytes that a client sends in a turn.
            down: Bytes that it receives.

        Raises:
            InputError: its trace cannot be used.
        """
        assert workload.time is not None
        self._time, self._clients = workload.time, clients
        self._draws, self._conditions = Draws(workload, clients), Conditions(workload, clients, up, down)
        turns = self._time.uploads if self._time.overlaps else self._draws.cohort(1)
        self._kept = deque[Step](maxlen=max(_FEWEST, _KEPT // turns))
        self._steps = self._begun()

    @classmethod
    def of(cls, workload: Workload, clients: Clients, learner: Learner) -> "Timetable | None":
        """The timetable of a run, with the bytes that its method sends; if they are unknown, the shared parameters.

        None without simulated time.
        """
        if workload.time is None:
            return None
        start = learner.fresh_server()
        taken_up = workload.time.per_server(workload.uploads)
        sent = traffic_of_zeros(workload.algorithm, start, clients.names, taken_up).phases.values()
        size = float(start["shared"].nbytes)
        return cls(
            workload,
            clients,
            sum(phase.up for phase in sent) if sent else size,
            sum(phase.down for phase in sent) if sent else size,
        )

    def step(self, round_: int) -> Step:
        """The step of a round, counted from 1; cheap for rounds in order, and for those shortly before.

        Raises:
            InputError: no client finishes a turn any more.
        """
        if self._kept and round_ < self._kept[0].round:
            self._restart()
        while not self._kept or self._kept[-1].round < round_:
            try:
                self._kept.append(next(self._steps))
            except InputError:  # after which an iterator is exhausted
                self._restart()
                raise
        return self._kept[round_ - self._kept[0].round]

    def _restart(self) -> None:
        self._kept.clear()
        self._steps = self._begun()

    def _begun(self) -> Iterator[Step]:
        mode = Overlapping if self._time.overlaps else Cohorts
        return mode(self._time, self._draws, self._conditions, self._clients).steps()
