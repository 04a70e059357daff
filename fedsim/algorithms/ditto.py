"""Ditto: a shared model, and beside it a personal one that is pulled to it (Li et al., ICML 2021, arXiv 2012.04221)."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.fedprox import proximal
from fedsim.algorithms.learner import Learner


class Ditto(Algorithm):
    """FedAvg, and the personal model v of every client goes down its loss + lam/2 ||v - srv||^2; v is what it uses.

    A round is twice FedAvg's work: local_epochs for the shared model, and as many for the personal one.
    """

    name: Literal["ditto"] = Field("ditto", description="Method.")
    lam: float = Field(0.1, ge=0, description="Pull of the personal model to the shared one; 0: each trains alone.")

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """FedAvg's work, then the personal model's."""
        sent = super().train(learner, received, phase)
        with learner.branch("personal"):
            pull = proximal(learner, received["shared"], self.lam) if self.lam else None
            for batch in learner.batches(learner.training.local_epochs):
                learner.step(batch, regulariser=pull)
        return sent

    def deploy(self, learner: Learner, received: Mapping[str, Tensor]) -> None:
        """The personal model; the shared one for a client that has not trained yet."""
        self.receive(learner, received)
        learner.adopt(learner.private, "personal.")
