"""A control for methods that share the encoder: it stays as it starts, and each client trains its decoder alone."""

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Received, ServerState, Upload
from fedsim.algorithms.learner import Learner, ParameterGroup
from fedsim.models.base import is_encoder

_DECODER: tuple[ParameterGroup, ...] = ("local",)


class FrozenEncoder(Algorithm):
    """A control: the encoder stays as it starts, so what federated training of it gains, it gains over this."""

    name: Literal["frozen_encoder"] = Field("frozen_encoder", description="Method.")

    def shares(self, parameter: str) -> bool:
        """The encoders of all domains, which all clients start with."""
        return is_encoder(parameter)

    def uploads(self, phase: str) -> list[Upload]:
        """Nothing."""
        return []

    def downlink(self, client: str, broadcast: Collection[str], phase: str) -> Collection[str]:
        """Nothing: the encoder is there from the start."""
        return ()

    def update(self, server: ServerState, received: Received) -> ServerState:
        """The encoder stays."""
        return server

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Local epochs of the decoder."""
        self.receive(learner, received)
        for batch in learner.batches(learner.training.local_epochs):
            learner.step(batch, groups=_DECODER)
        return {}
