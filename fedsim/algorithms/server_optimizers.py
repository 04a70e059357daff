"""FedAdam, FedYogi and FedAdagrad: an adaptive optimizer at the server (Reddi et al., ICLR 2021, arXiv 2003.00295).

With the clients' mean y and the server's model x, the pseudo-gradient is D = y - x. Then m <- b1 m + (1 - b1) D, v as
each method says, starting at tau^2, and x <- x + lr m / (sqrt(v) + tau).
"""

from abc import abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.algorithms.base import Algorithm, Received, ServerState

Array = NDArray[np.float64]


class ServerOptimizer(Algorithm):
    """FedAvg whose server takes an adaptive step towards the clients' mean."""

    server_lr: float = Field(0.01, gt=0, description="Learning rate of the server.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Memory of the first moment.")
    tau: float = Field(1e-3, gt=0, description="Floor of the step's denominator: the degree of adaptivity.")

    @abstractmethod
    def second_moment(self, before: Array, squared: Array) -> Array:
        """v (P,) after the squared pseudo-gradient D^2 (P,)."""

    def update(self, server: ServerState, received: Received) -> ServerState:
        """One step of the server's optimizer."""
        x = server["shared"].astype(np.float64)
        change = received.sums["shared"] / received.weight - x
        m = self.beta1 * server.get("m", np.zeros_like(x)) + (1 - self.beta1) * change
        v = self.second_moment(server.get("v", np.full_like(x, self.tau**2)).astype(np.float64), change**2)
        x += self.server_lr * m / (np.sqrt(v) + self.tau)
        return {name: array.astype(np.float32) for name, array in (("shared", x), ("m", m), ("v", v))}


class FedAdam(ServerOptimizer):
    """FedAvg whose server steps as Adam: v <- b2 v + (1 - b2) D^2."""

    name: Literal["fedadam"] = Field("fedadam", description="Method.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Memory of the second moment.")

    def second_moment(self, before: Array, squared: Array) -> Array:
        """An exponential mean."""
        return self.beta2 * before + (1 - self.beta2) * squared


class FedYogi(ServerOptimizer):
    """FedAvg whose server steps as Yogi: v <- v - (1 - b2) D^2 sign(v - D^2)."""

    name: Literal["fedyogi"] = Field("fedyogi", description="Method.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Memory of the second moment.")

    def second_moment(self, before: Array, squared: Array) -> Array:
        """A mean that moves by an amount of D^2's size, whatever v's."""
        return before - (1 - self.beta2) * squared * np.sign(before - squared)


class FedAdagrad(ServerOptimizer):
    """FedAvg whose server steps as Adagrad: v <- v + D^2."""

    name: Literal["fedadagrad"] = Field("fedadagrad", description="Method.")
    beta1: float = Field(0.0, ge=0, lt=1, description="Memory of the first moment.")

    def second_moment(self, before: Array, squared: Array) -> Array:
        """A sum."""
        return before + squared
