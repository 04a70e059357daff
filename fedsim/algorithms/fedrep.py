"""FedRep: first the private head, then the shared body (Collins et al., ICML 2021, arXiv 2102.07078)."""

from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fedsim.algorithms.fedper import belongs, missing_layers
from fedsim.algorithms.learner import Learner, ParameterGroup
from fedsim.algorithms.tuning import Tuned
from fedsim.models.base import is_encoder


class FedRep(Tuned):
    """FedMRI without its term, and with a round's steps divided: first the decoder alone, then the encoder alone."""

    tuned_groups: ClassVar[tuple[ParameterGroup, ...]] = ("local",)

    name: Literal["fedrep"] = Field("fedrep", description="Method.")
    head_share: float = Field(
        0.5, gt=0, lt=1, description="Share of a round's local steps, the first ones, that move the private head."
    )
    head: tuple[str, ...] = Field(
        (), description="Layers that stay with the client: parts of their parameters' names; default the decoder."
    )

    def shares(self, parameter: str) -> bool:
        """The encoders of all domains, or everything but the head."""
        return not belongs(parameter, self.head) if self.head else is_encoder(parameter)

    def _work(self, learner: Learner, received: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """At least one step for each group; a client with a single step a round gives it to the body."""
        self.receive(learner, received)
        epochs = learner.training.local_epochs
        steps = epochs * learner.steps
        head = min(max(1, round(self.head_share * steps)), steps - 1)
        for index, batch in enumerate(learner.batches(epochs)):
            group: ParameterGroup = "local" if index < head else "shared"
            learner.step(batch, groups=(group,))
        return {"shared": learner.shared}

    def warnings(self, steps_per_epoch: Mapping[str, int], parameters: Collection[str]) -> list[str]:
        """A layer that the network does not have leaves nothing private."""
        return [f"{missing}; nothing of it is private" for missing in missing_layers("head", self.head, parameters)]
