"""What a host needs to know about a client. Imports no importers and no tables, so that an actor starts quickly."""

from dataclasses import dataclass, field

from fedsim.algorithms.training import Training
from fedsim.data.samples import Slices
from fedsim.workload.resources import Resources


@dataclass(frozen=True, kw_only=True)
class ClientSpec:
    """One client, cheap to send to its host."""

    name: str
    site: str
    data: Slices
    training: Training
    resources: Resources = field(default_factory=Resources)

    def work(self) -> float:
        """Training per round [pixels], the estimate of its time until that has been measured."""
        pixels = sum(member.pixels() for member in self.data.members)
        return float(pixels * self.training.local_epochs)
