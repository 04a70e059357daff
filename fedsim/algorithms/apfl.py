"""APFL: each client uses a mixture of a personal model and the shared one (Deng et al. 2020, arXiv 2003.13461).

With the shared model w and the personal one v of a client, its mixture is m = alpha v + (1 - alpha) w. On every batch

    v <- v - lr alpha grad loss(m),   w <- w - lr grad loss(w)

and on the first batch of a round alpha <- alpha - lr <v - w, grad loss(m)>, kept within [0, 1]. The server averages w.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.learner import Learner
from fedsim.data.batch import Batch

_NAME = "personal"


class APFL(Algorithm):
    """FedAvg, and beside it a personal model v that learns what the mixture lacks; the mixture is what a client uses.

    A round is twice FedAvg's work: a step for each of the two models on every batch.
    """

    name: Literal["apfl"] = Field("apfl", description="Method.")
    alpha: float = Field(0.5, ge=0, le=1, description="Share of the personal model; with adaptive: at the start.")
    adaptive: bool = Field(True, description="Whether each client adapts its alpha, by one step a round.")

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """On every batch a step of the personal model, then one of the shared model."""
        self.receive(learner, received)
        learner.private.setdefault("alpha", learner.shared.new_full((1,), self.alpha))
        adapts = self.adaptive
        for batch in learner.batches(learner.training.local_epochs):
            self._personal_step(learner, batch, adapts)
            learner.step(batch)
            adapts = False
        return {"shared": learner.shared}

    @staticmethod
    def _personal_step(learner: Learner, batch: Batch, adapts: bool) -> None:
        """A step of v by the gradient at the mixture with the present w, and one of alpha if it is to adapt."""
        common, alpha = learner.shared.clone(), learner.private["alpha"]
        with learner.branch(_NAME):
            own = learner.shared.clone()
            learner.shared.copy_(torch.lerp(common, own, alpha))

            def to_personal() -> None:
                gradient = learner.shared_gradient
                if adapts:
                    slope = ((own - common) * gradient).sum()
                    rate = learner.training.lr_in(learner.round)
                    learner.private["alpha"] = (alpha - rate * slope).clamp(0, 1)
                gradient.mul_(alpha)
                learner.shared.copy_(own)

            learner.step(batch, regulariser=to_personal)

    def deploy(self, learner: Learner, received: Mapping[str, Tensor]) -> None:
        """The mixture; the shared model for a client that has not trained yet."""
        self.receive(learner, received)
        if f"{_NAME}.shared" in learner.private:
            learner.adopt(learner.private, f"{_NAME}.")
            learner.shared.copy_(torch.lerp(received["shared"], learner.shared, learner.private["alpha"]))
