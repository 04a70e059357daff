"""Where hosts live: in this process (`serial`) or as Ray actors (`ray`). Both give the same bits."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

from fedsim.algorithms.base import Vector
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.host.messages import NOTHING, Limits, Message, Reply, Row, Setup
from fedsim.engine.observer import Observer
from fedsim.workload.engine import Engine

_GB = 1e9
_REPORTS = 1000  # a second, of all hosts; each takes the driver half a millisecond
_STATE_SHARE, _SLICE_SHARE = 0.5, 0.2  # of a node's memory, where the workload does not say


class Backend(ABC):
    """Hosts and how to call them."""

    @abstractmethod
    def start(self, setup: Setup, clients: Clients) -> None:
        """Start hosts for the clients; those that are running and idle stay, with their clients' present state.

        Clients that are not listed get a host with the first message that names them.

        Raises:
            WorkerLostError: a process was lost meanwhile.
        """

    @abstractmethod
    def clients(self) -> Iterable[str]:
        """Names of the clients that have a host."""

    @abstractmethod
    def call(self, message: Message, broadcast: Mapping[str, Vector] = NOTHING) -> Iterator[Reply]:
        """Send a message to every host that holds some of its clients; yields the pieces of all answers as they come.

        Args:
            message: Each host gets it narrowed to its own clients.
            broadcast: What the server sends: one object, read by all hosts of a node.

        Yields:
            Replies of all hosts, in any order; of Train the hosts' partial sums, too.

        Raises:
            WorkerLostError: a host's process is gone.
            ClientError: a client failed.
        """

    @abstractmethod
    def learn(self, rows: Iterable[Row]) -> None:
        """Learn from the ledger how long clients take."""

    @abstractmethod
    def slots(self) -> int:
        """How many clients can train at once."""

    def observer(self) -> Observer:
        """What wants to be told about the run."""
        return Observer()

    @abstractmethod
    def close(self) -> None:
        """Release what was started."""


def report_seconds(hosts: int) -> float:
    """How often each of a run's hosts reports rows [s]: every second, or less often where they are many."""
    return max(1.0, hosts / _REPORTS)


def limits_of(engine: Engine, memory: float, hosts: int, work: float = 0.0, *, all_hosts: int = 1) -> Limits:
    """The limits of each of some hosts.

    Args:
        engine: Says how much memory of a node and of a GPU private state and slices may take.
        memory: Of the node [bytes].
        hosts: On the node.
        work: Memory of a GPU that training takes [bytes].
        all_hosts: Of the run.
    """
    states = _STATE_SHARE * memory if engine.state_memory is None else engine.state_memory * _GB
    slices = _SLICE_SHARE * memory if engine.slice_memory is None else engine.slice_memory * _GB
    client_known = engine.on_lost_process == "drop" or engine.client_timeout_s is not None
    return Limits(
        state_bytes=states / hosts,
        slice_bytes=slices / hosts,
        device_bytes=None if engine.device_memory is None else engine.device_memory * _GB,
        work_bytes=work,
        scratch=engine.scratch,
        report_seconds=0.0 if client_known else report_seconds(all_hosts),
    )
