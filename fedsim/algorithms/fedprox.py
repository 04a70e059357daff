"""FedProx: FedAvg with a pull to the server's model (Li et al., MLSys 2020, arXiv 1812.06127)."""

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.learner import Learner


class FedProx(Algorithm):
    """FedAvg whose local loss gains mu/2 ||theta - srv||^2."""

    name: Literal["fedprox"] = Field("fedprox", description="Method.")
    mu: float = Field(0.01, ge=0, description="Weight of the proximal term; 0 is FedAvg.")

    def regulariser(self, learner: Learner, received: Mapping[str, Tensor]) -> Callable[[], None] | None:
        """The gradient of the proximal term, mu (theta - srv)."""
        return proximal(learner, received["shared"], self.mu) if self.mu else None


def proximal(learner: Learner, centre: Tensor, weight: float) -> Callable[[], None]:
    """Adds the gradient of weight/2 ||shared - centre||^2."""

    def pull() -> None:
        learner.shared_gradient.add_(learner.shared - centre, alpha=weight)  # the difference first: it is small

    return pull
