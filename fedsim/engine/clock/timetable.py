"""The timetable of a run in simulated time: a function of the workload, its seed and its clients, never of training."""

from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.turns import Step
from fedsim.workload.schema import Workload


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
            InputError: its trace cannot be read.
        """

    def step(self, round_: int) -> Step:
        """The step of a round, counted from 1; cheap for rounds in order, and for those shortly before.

        Raises:
            InputError: no client is ever there again.
        """
        raise NotImplementedError
