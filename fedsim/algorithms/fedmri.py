"""FedMRI: shared encoder, private decoder, and a weighted contrastive pull on the encoder's weights.

Feng et al., IEEE TMI 42(7), 2023, doi 10.1109/TMI.2022.3202106. With the encoder theta, the server's encoder srv that
the client received, and the encoders prev_k that last round's clients uploaded (its own among them):

    P = ||theta - srv||_1,  N = sum_k ||theta - prev_k||_1,  loss = MSE + beta * P / (N + 1e-14)

over all encoder tensors of all domains together. The term acts from round 2 on and not on the first batch of an epoch.
srv is the mean of prev_k with weights w_k, so P / N <= max_k w_k by the triangle inequality.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Received, ServerState, Upload, Vector
from fedsim.algorithms.learner import Learner
from fedsim.models.reconstruction import is_encoder

_EPSILON = 1e-14


def ratio_and_gradient(theta: Tensor, server: Tensor, previous: Tensor) -> tuple[float, Tensor]:
    """P / N and its (sub)gradient (P,) in theta, without an autograd graph; the subgradient of |0| is 0.

    Args:
        theta: Current encoder (P,).
        server: Encoder received from the server (P,).
        previous: Encoders uploaded in the last round (S, P).
    """
    offset = theta - server
    near = float(offset.abs().sum(dtype=torch.float64))
    far, far_gradient = 0.0, torch.zeros_like(theta)
    for other in previous:
        torch.sub(theta, other, out=offset)
        far += float(offset.abs().sum(dtype=torch.float64))
        far_gradient += offset.sign_()
    far += _EPSILON
    gradient = torch.sub(theta, server, out=offset).sign_().sub_(far_gradient, alpha=near / far).div_(far)
    return near / far, gradient


class _ContrastiveRatio(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, server: Tensor, previous: Tensor) -> Tensor:  # noqa: ANN401
        ratio, gradient = ratio_and_gradient(theta, server, previous)
        ctx.save_for_backward(gradient)
        return theta.new_tensor(ratio)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None


def contrastive_ratio(theta: Tensor, server: Tensor, previous: Tensor) -> Tensor:
    """P / N, a scalar differentiable in theta (P,), for server (P,) and previous (S, P)."""
    ratio: Tensor = _ContrastiveRatio.apply(theta, server, previous)  # type: ignore[no-untyped-call]
    return ratio


class FedMRI(Algorithm):
    """The encoder is shared, the decoder never leaves its client."""

    name: Literal["fedmri"] = Field("fedmri", description="Method.")
    beta: float = Field(100.0, ge=0, description="Weight of the contrastive term; 0 leaves it out.")

    def shares(self, parameter: str) -> bool:
        """The encoders of all domains."""
        return is_encoder(parameter)

    def uploads(self, phase: str) -> list[Upload]:
        """The encoder: averaged, and kept as a negative for the next round."""
        return [Upload("shared", collected=self.beta > 0)]

    def broadcast(self, server: ServerState, phase: str) -> Mapping[str, Vector]:
        """The mean encoder and, from round 2 on, the encoders it is the mean of."""
        return server

    def update(self, server: ServerState, received: Received) -> ServerState:
        """Mean encoder and negatives."""
        state = super().update(server, received)
        return {**state, "previous": np.stack(received.collected["shared"])} if self.beta else state

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Local epochs with the contrastive term on every batch but an epoch's first."""
        self.deploy(learner, received)
        contrast = partial(self._contrast, learner, received) if "previous" in received else None
        for _ in range(learner.training.local_epochs):
            for index, batch in enumerate(learner.batches()):
                learner.step(batch, regulariser=contrast if index else None)
        return {"shared": learner.shared}

    def _contrast(self, learner: Learner, received: Mapping[str, Tensor]) -> None:
        ratio, gradient = ratio_and_gradient(learner.shared, received["shared"], received["previous"])
        learner.shared_gradient.add_(gradient, alpha=self.beta)
        learner.note("contrastive_ratio", ratio)

    def warnings(self, steps_per_epoch: Mapping[str, int], parameters: Collection[str]) -> list[str]:
        """The term cannot act on a client that has a single batch."""
        idle = [client for client, steps in steps_per_epoch.items() if steps < 2]
        if not idle or not self.beta:
            return []
        return [
            f"the contrastive term cannot act on {len(idle)} of {len(steps_per_epoch)} clients ({idle[0]}, ...): "
            "they have one batch an epoch; lower training.batch_size"
        ]
