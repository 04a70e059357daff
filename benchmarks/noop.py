"""Methods that train nothing, to measure the engine alone: `algorithm.name: noop:Noop` or `noop:Drift`."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.learner import Learner
from fedsim.core.seeds import torch_stream
from fedsim.models.base import is_encoder


class Noop(Algorithm):
    """FedMRI's partition: a client's private state is swapped in and out, and the encoder is returned unchanged."""

    def shares(self, parameter: str) -> bool:
        """The encoder."""
        return is_encoder(parameter)

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Return the received encoder; the optimizer's state, if any, is created on a client's first turn."""
        self.receive(learner, received)
        if learner.training.optimizer != "sgd" and not learner.optimizer.state:
            for layout in (learner.flat("shared"), learner.flat("local")):
                layout.prepare(trained=True)
            learner.descend()  # the gradients are zero: nothing moves
        return {"shared": learner.shared}


class Drift(Noop):
    """Noop, but private parameters move in every turn, each client's in its own direction."""

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Return the received encoder; the private part takes a random step, drawn from (client, round)."""
        drawn = torch_stream(0, "drift", learner.client, learner.round)
        learner.local.add_(torch.randn(learner.local.shape, generator=drawn).to(learner.local))
        return super().train(learner, received, phase)
