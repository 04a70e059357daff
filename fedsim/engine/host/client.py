"""What a host needs to know of a client. Kept free of importers and tables, so that an actor starts quickly."""

from dataclasses import dataclass, field

from fedsim.algorithms.learner import Training
from fedsim.data.samples import Slices
from fedsim.workload.resources import Resources


@dataclass(frozen=True)
class ClientSpec:
    """One client: cheap to send to wherever it will live."""

    name: str
    site: str
    data: Slices
    training: Training
    resources: Resources = field(default_factory=Resources)

    def work(self) -> float:
        """How much training it does in a round, in pixels; the measure of its time until that is known."""
        pixels = sum(member.samples() * member.matrix[0] * member.matrix[1] for member in self.data.members)
        return float(pixels * self.training.local_epochs)
