"""What a host needs to know of a client. Kept free of importers and tables, so that an actor starts quickly."""

from dataclasses import dataclass

from fedsim.algorithms.learner import Training
from fedsim.data.samples import Slices


@dataclass(frozen=True)
class ClientSpec:
    """One client: cheap to send to wherever it will live."""

    name: str
    site: str
    data: Slices
    training: Training
