"""SingleSet: every client trains alone, nothing is shared."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Received, ServerState, Upload, Vector
from fedsim.algorithms.learner import Learner


class Isolated(Algorithm):
    """Clients that send and receive nothing."""

    def shares(self, parameter: str) -> bool:
        """Nothing."""
        return False

    def uploads(self, phase: str) -> list[Upload]:
        """Nothing."""
        return []

    def broadcast(self, server: ServerState, phase: str) -> Mapping[str, Vector]:
        """Nothing."""
        return {}

    def update(self, server: ServerState, received: Received) -> ServerState:
        """The server has nothing to do."""
        return server

    def receive(self, learner: Learner, received: Mapping[str, Tensor]) -> None:
        """Nothing: the client's own network is in place."""


class Single(Isolated):
    """Every client trains alone: the lower reference of every federated method."""

    name: Literal["single"] = Field("single", description="Method.")
