"""FedRep: first the private head, then the shared body (Collins et al., ICML 2021, arXiv 2102.07078)."""

from collections.abc import Mapping
from itertools import chain
from typing import Literal

from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.learner import Learner, ParameterGroup
from fedsim.models.base import is_encoder


class FedRep(Algorithm):
    """FedMRI's partition without its term, and a round's steps divided: decoder alone, then encoder alone."""

    name: Literal["fedrep"] = Field("fedrep", description="Method.")
    head_share: float = Field(
        0.5, gt=0, lt=1, description="Share of a round's local steps, the first ones, that move the private decoder."
    )

    def shares(self, parameter: str) -> bool:
        """The encoders of all domains."""
        return is_encoder(parameter)

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """At least one step for each group; a client with a single step a round gives it to the encoder."""
        self.receive(learner, received)
        epochs = learner.training.local_epochs
        steps = epochs * learner.steps
        head = min(max(1, round(self.head_share * steps)), steps - 1)
        for index, batch in enumerate(chain.from_iterable(learner.batches() for _ in range(epochs))):
            group: ParameterGroup = "local" if index < head else "shared"
            learner.step(batch, groups=(group,))
        return {"shared": learner.shared}
