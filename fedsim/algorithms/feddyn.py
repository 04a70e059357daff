"""FedDyn: a dynamic regulariser aligns local optima with the global one (Acar et al., ICLR 2021, arXiv 2111.04263).

A client k goes down its loss - <h_k, theta> + alpha/2 ||theta - srv||^2, then sets h_k <- h_k - alpha (theta - srv).
The server keeps h <- h - alpha/N sum_k (theta_k - srv) over the drawn clients; its model is mean_k theta_k - h/alpha.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Received, ServerState
from fedsim.algorithms.fedprox import proximal
from fedsim.algorithms.learner import Learner


class FedDyn(Algorithm):
    """A dynamic regulariser, of which clients and server keep a vector of the network's size; bytes as FedAvg's."""

    lockstep: ClassVar[bool] = True

    name: Literal["feddyn"] = Field("feddyn", description="Method.")
    alpha: float = Field(0.01, gt=0, description="Strength of the regulariser.")

    def update(self, server: ServerState, received: Received) -> ServerState:
        """With weights by samples, the sum over drawn clients is their weighted mean times their number."""
        mean = received.sums["shared"] / received.weight
        drawn = len(received.phase.clients) / received.population
        h = server.get("h", np.zeros_like(mean)) - self.alpha * drawn * (mean - server["shared"])
        return {"shared": (mean - h / self.alpha).astype(np.float32), "h": h.astype(np.float32)}

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Local epochs, then the client's vector moves."""
        sent = super().train(learner, received, phase)
        learner.private["h"] = _own(learner) - self.alpha * (learner.shared - received["shared"])
        return sent

    def regulariser(self, learner: Learner, received: Mapping[str, Tensor]) -> Callable[[], None]:
        """The gradient alpha (theta - srv) - h_k."""
        own, pull = _own(learner), proximal(learner, received["shared"], self.alpha)

        def dynamic() -> None:
            pull()
            learner.shared_gradient.sub_(own)

        return dynamic


def _own(learner: Learner) -> Tensor:
    return learner.private.get("h", torch.zeros_like(learner.shared))
