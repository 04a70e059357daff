"""The interface of a federated method.

A method is a section of the workload that says what is shared, what a client does in a round, and what the server does
with what comes back. What travels are named flat float32 vectors: the server broadcasts some, a client uploads some,
and each upload is summed (order-free, weighted or not) and, if the method asks for it, collected one by one.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fedsim.algorithms.learner import Learner
from fedsim.core.errors import hint
from fedsim.core.extension import Extension

Vector = NDArray[np.float32]
ServerState = dict[str, Vector]
"""What the server keeps between rounds: `shared` (the shared parameters, flat) and the method's own arrays.

`buffers` is the engine's: the mean running statistics of shared layers, where a network has any."""


@dataclass(frozen=True)
class Upload:
    """A named vector that every client of a phase sends."""

    name: str
    _: KW_ONLY
    summed: bool = True
    """Add up over clients, in any order; False for vectors that only make sense one by one."""
    weighted: bool = True
    """Multiply by the client's weight before summing."""
    collected: bool = False
    """Hand each client's vector to the server too; costs the driver one vector per client."""
    grid: int = 40
    """Terms are rounded to 2^-grid before summing, so that sums are exact in any order; |term| < 2^(51 - grid)."""


@dataclass(frozen=True)
class Phase:
    """A part of a round: some clients do one thing, then the server updates. Most methods have one."""

    clients: tuple[str, ...]
    name: str = "train"


@dataclass(frozen=True, kw_only=True)
class Received:
    """What the server has at the end of a phase."""

    phase: Phase
    sums: Mapping[str, NDArray[np.float64]]
    """Sum over clients of each upload: weight * vector, or vector if it is not weighted."""
    weight: float
    """Sum of the clients' weights."""
    collected: Mapping[str, Sequence[Vector]]
    """Each client's vector of every collected upload, in the order of phase.clients."""
    population: int
    """Number of clients in the federation, drawn for this round or not."""
    stale: bool = False
    """Whether some clients began with earlier states of the server, or count less: `shared` is no mean of uploads."""

    def mean(self, name: str) -> Vector:
        """The weighted mean of an upload.

        Raises:
            LookupError: no upload of this name is summed.
        """
        if name not in self.sums:
            raise LookupError(f"no upload {name!r} is summed; {hint(name, self.sums)}")
        return (self.sums[name] / self.weight).astype(np.float32)


class Algorithm(Extension):
    """A federated method. The base shares everything, trains on the local loss and averages: it is FedAvg."""

    pools_data: ClassVar[bool] = False
    """Whether one client holds every site's data, instead of one or more for each site."""
    lockstep: ClassVar[bool] = False
    """Whether all clients of a round must begin with one and the same state of the server: such a method is refused
    where they don't, with time.mode buffered or asynchronous and with time.hierarchy.
    """

    name: str
    weighting: Literal["uniform", "samples"] = Field(
        "uniform", description="Weights of the mean: the same for all, or by number of training slices."
    )

    def shares(self, parameter: str) -> bool:
        """Whether the network's parameter of this name is shared by all clients; the others never leave theirs."""
        return True

    def settled(self, cohort: int) -> Self:
        """The method with those choices made that depend on how many clients a round has; asked once, before a run."""
        return self

    def overlapping(self) -> "Algorithm":
        """The method where rounds overlap (time.mode buffered or asynchronous); asked once, after `settled`."""
        return self

    # Server

    def phases(self, cohort: tuple[str, ...], round_: int, seed: int) -> list[Phase]:
        """What the clients drawn for a round do, in order."""
        return [Phase(cohort)]

    def uploads(self, phase: str) -> list[Upload]:
        """What each client of a phase sends."""
        return [Upload("shared")]

    def broadcast(self, server: ServerState, phase: str) -> Mapping[str, Vector]:
        """What each client of a phase receives."""
        return {"shared": server["shared"]}

    def downlink(self, client: str, broadcast: Collection[str], phase: str) -> Collection[str]:
        """Names of what the protocol sends to a client of all that it can read here; what its ledger counts."""
        return broadcast

    def update(self, server: ServerState, received: Received) -> ServerState:
        """The server's state after a phase."""
        return {"shared": received.mean("shared")}

    # Client

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """A client's work in a phase; returns its uploads by name (nothing else that is returned leaves the client)."""
        self.receive(learner, received)
        pull = self.regulariser(learner, received)
        if not (pull is None or callable(pull)):
            raise TypeError(f"regulariser must return a function or None, not {type(pull).__name__}")
        for batch in learner.batches(learner.training.local_epochs):
            learner.step(batch, regulariser=pull)
        return {"shared": learner.shared}

    def regulariser(self, learner: Learner, received: Mapping[str, Tensor]) -> Callable[[], None] | None:
        """What adds to the gradients before every step of `train`; None: nothing does."""
        return None

    def receive(self, learner: Learner, received: Mapping[str, Tensor]) -> None:
        """Put what the server sent into the network; the client's private part is already in place."""
        learner.shared.copy_(received["shared"])

    def deploy(self, learner: Learner, received: Mapping[str, Tensor]) -> None:
        """Set up the network that the client would use on its patients."""
        self.receive(learner, received)

    # Before the run

    def warnings(self, steps_per_epoch: Mapping[str, int], parameters: Collection[str]) -> list[str]:
        """What the user should know before the run, given each client's batches and the network's parameter names."""
        return []
