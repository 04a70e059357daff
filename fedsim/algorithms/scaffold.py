"""SCAFFOLD: control variates take the drift out of local steps (Karimireddy et al., ICML 2020, arXiv 1910.06378).

With client controls c_k and their mean c, a client steps along g(theta) - c_k + c. Its new control is the mean of the
gradients g it met on its way: the paper's option II, (x - y) / (K lr) - c + c_k, which is that mean for plain SGD, said
so that it holds for any local optimizer. The server adds |S|/N times the mean change of the drawn clients to c.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Received, ServerState, Upload, Vector
from fedsim.algorithms.learner import Learner

_GRID = 32
"""Of the sum of changes over clients, which is not divided by their number: it must stay below 2^19."""


class Scaffold(Algorithm):
    """Control variates take the drift out of local steps; one of the network's size travels with it both ways."""

    lockstep: ClassVar[bool] = True

    name: Literal["scaffold"] = Field("scaffold", description="Method.")

    def uploads(self, phase: str) -> list[Upload]:
        """The model, and the change of the client's control."""
        return [Upload("shared"), Upload("control", weighted=False, grid=_GRID)]

    def broadcast(self, server: ServerState, phase: str) -> Mapping[str, Vector]:
        """The model and the mean control."""
        return {"shared": server["shared"], "control": _control(server)}

    def update(self, server: ServerState, received: Received) -> ServerState:
        """Mean model; the control moves by the sum of changes over all clients of the federation."""
        change = received.sums["control"] / received.population
        return {**super().update(server, received), "control": (_control(server) + change).astype(np.float32)}

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Local epochs along corrected gradients."""
        self.receive(learner, received)
        own = learner.private.get("control", torch.zeros_like(learner.shared))
        correction, met = received["control"] - own, torch.zeros_like(own)

        def correct() -> None:
            met.add_(learner.shared_gradient)
            learner.shared_gradient.add_(correction)

        for batch in learner.batches(learner.training.local_epochs):
            learner.step(batch, regulariser=correct)
        learner.private["control"] = met.div_(len(learner.notes["loss"]))
        return {"shared": learner.shared, "control": met - own}


def _control(server: ServerState) -> Vector:
    return server.get("control", np.zeros_like(server["shared"]))
