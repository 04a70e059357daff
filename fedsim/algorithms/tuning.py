"""Fine-tuning before use: after a round each client trains what it received, for itself, and uses the result.

The tuned model stays beside the federated one, which goes on without it: it is made anew from every round's model, with
a new optimizer, in a phase of its own in which nothing is sent back.
"""

from collections.abc import Collection, Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Phase, Received, ServerState, Upload
from fedsim.algorithms.learner import PARAMETER_GROUPS, Learner, ParameterGroup

_TUNE, _NAME = "tune", "tuned"
_PREFIX = f"{_NAME}."


class Tuned(Algorithm):
    """FedAvg, whose clients may fine-tune the model before they use it."""

    tuned_groups: ClassVar[tuple[ParameterGroup, ...]] = PARAMETER_GROUPS
    """What of the network is fine-tuned."""

    tune_epochs: int = Field(
        0, ge=0, description="Epochs of fine-tuning on a client's own slices before it uses the model; 0: none."
    )

    def phases(self, cohort: tuple[str, ...], round_: int, seed: int) -> list[Phase]:
        """The round, and after it the fine-tuning."""
        return [Phase(cohort), *([Phase(cohort, _TUNE)] if self.tune_epochs else [])]

    def uploads(self, phase: str) -> list[Upload]:
        """Nothing of what is fine-tuned."""
        return [] if phase == _TUNE else super().uploads(phase)

    def downlink(self, client: str, broadcast: Collection[str], phase: str) -> Collection[str]:
        """For the fine-tuning nothing: a client has the model that it uses, as with any method."""
        return () if phase == _TUNE else broadcast

    def update(self, server: ServerState, received: Received) -> ServerState:
        """Fine-tuning leaves the server as it is."""
        return server if received.phase.name == _TUNE else super().update(server, received)

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """A round's work, or the fine-tuning of its result."""
        if phase != _TUNE:
            return self._work(learner, received)
        self.receive(learner, received)
        self._tune(learner)
        learner.notes["tune_loss"], learner.notes["loss"] = learner.notes["loss"], []
        return {}

    def _work(self, learner: Learner, received: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A client's work in the round itself."""
        return super().train(learner, received, "train")

    def _tune(self, learner: Learner) -> None:
        """Keep, as `tuned.<name>`, what becomes of the present model."""
        local_buffers = learner.flat_buffers("local").vector
        vectors = {"shared": learner.shared, "local": learner.local}
        vectors |= {"shared_buffers": learner.shared_buffers, "local_buffers": local_buffers}
        _forget(learner, _PREFIX)
        learner.private.update({_PREFIX + name: vector.clone() for name, vector in vectors.items() if vector.numel()})
        with learner.branch(_NAME):
            for batch in learner.batches(self.tune_epochs):
                learner.step(batch, groups=self.tuned_groups)
        _forget(learner, f"{_PREFIX}optimizer.")
        for group in PARAMETER_GROUPS:
            if group not in self.tuned_groups:
                _forget(learner, _PREFIX + group)

    def deploy(self, learner: Learner, received: Mapping[str, Tensor]) -> None:
        """The fine-tuned model; the received one for a client that has not fine-tuned any yet."""
        self.receive(learner, received)
        if self.tune_epochs:
            learner.adopt(learner.private, _PREFIX)


def _forget(learner: Learner, prefix: str) -> None:
    for key in [key for key in learner.private if key.startswith(prefix)]:
        del learner.private[key]
