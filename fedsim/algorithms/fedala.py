"""FedALA: each client learns how much of the shared model it takes over (Zhang et al., AAAI 2023, arXiv 2212.01197).

Before its local training a client k initialises its model, in the layers nearest to the output, element by element

    theta = theta_k + (srv - theta_k) W_k

between the model theta_k that it had trained last and the received one; in all other layers it takes the received one.
W_k starts at 1 and goes down the loss of theta on a part of the client's slices, within [0, 1]:

    W_k <- W_k - ala_lr (srv - theta_k) grad loss(theta)

for several epochs the first time, and for one in every later round. The server averages whole models.
"""

import math
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.fedper import FINEST, belongs, missing_layers
from fedsim.algorithms.learner import PARAMETER_GROUPS, Learner

_OWN, _WEIGHTS = "own", "weights"


class FedALA(Algorithm):
    """Each client learns how much of the shared layers nearest to the output it takes over; bytes as FedAvg's."""

    name: Literal["fedala"] = Field("fedala", description="Method.")
    layers: tuple[str, ...] = Field(
        FINEST, min_length=1, description="Layers that are taken over adaptively: parts of their parameters' names."
    )
    ala_lr: float = Field(1.0, gt=0, description="Step of the weights W.")
    ala_share: float = Field(0.8, gt=0, le=1, description="Share of a client's batches that W is learnt on.")
    ala_epochs: int = Field(10, ge=1, description="Epochs of W when it is learnt first; later rounds have one.")

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Learn W, begin from the mixture, then FedAvg's work."""
        self.receive(learner, received)
        adaptive = self._adaptive(learner)
        if _OWN in learner.private:
            self._learn_weights(learner, received["shared"][adaptive], adaptive)
        for batch in learner.batches(learner.training.local_epochs):
            learner.step(batch)
        learner.private[_OWN] = learner.shared[adaptive].clone()
        return {"shared": learner.shared}

    def _learn_weights(self, learner: Learner, received: Tensor, adaptive: Tensor) -> None:
        """Leave the mixture in the network and W in the private state.

        Args:
            learner: The network as received.
            received: Its adaptive parameters (Q,).
            adaptive: Which of the shared parameters (P,) they are.
        """
        own, buffers = learner.private[_OWN], learner.shared_buffers.clone()
        first = _WEIGHTS not in learner.private
        weights = torch.ones_like(own) if first else learner.private[_WEIGHTS].clone()
        chosen = list(islice(learner.batches(), math.ceil(self.ala_share * learner.steps)))
        for group in PARAMETER_GROUPS:
            learner.flat(group).prepare(trained=True)
        learner.shared[adaptive] = torch.lerp(own, received, weights)
        for _ in range(self.ala_epochs if first else 1):
            for batch in chosen:
                learner.differentiate(batch, PARAMETER_GROUPS)
                slope = learner.shared_gradient[adaptive] * (received - own)
                weights.sub_(slope, alpha=self.ala_lr).clamp_(0, 1)
                learner.shared[adaptive] = torch.lerp(own, received, weights)
        learner.shared_buffers.copy_(buffers)
        learner.private[_WEIGHTS] = weights

    def _adaptive(self, learner: Learner) -> Tensor:
        """Which of the shared parameters (P,) are taken over adaptively."""
        parts = [
            torch.full((shape.numel(),), belongs(name, self.layers)) for name, shape in learner.flat("shared").layout
        ]
        return torch.cat(parts).to(learner.device)

    def deploy(self, learner: Learner, received: Mapping[str, Tensor]) -> None:
        """The mixture by the weights learnt last; the shared model for a client without them."""
        self.receive(learner, received)
        if _WEIGHTS in learner.private:
            adaptive, own = self._adaptive(learner), learner.private[_OWN]
            learner.shared[adaptive] = torch.lerp(own, received["shared"][adaptive], learner.private[_WEIGHTS])

    def warnings(self, steps_per_epoch: Mapping[str, int], parameters: Collection[str]) -> list[str]:
        """Layers that the network does not have are not adaptive."""
        missing = missing_layers("layers", self.layers, parameters)
        return [f"{each}; nothing of it is taken over adaptively" for each in missing]
