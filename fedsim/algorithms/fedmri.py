"""FedMRI: shared encoder, private decoder, and a weighted contrastive pull on the encoder's weights.

Feng et al., IEEE TMI 42(7), 2023, doi 10.1109/TMI.2022.3202106. With the encoder theta, the server's encoder srv that
the client received, and the encoders prev_k that last round's clients uploaded (its own among them):

    P = ||theta - srv||_1,  N = sum_k ||theta - prev_k||_1,  loss + beta * P / (N + 1e-14)

over all encoder tensors of all domains together. The term acts from round 2 on and not on the first batch of an epoch.
srv is the mean of prev_k with weights w_k, so P / N <= max_k w_k by the triangle inequality.

Two ways to have the negatives: all of them (exact: S more encoders down, none more up), or their moments over clients
(one more encoder up and one more down for their spread, whatever S is; with weighting `samples` a second one each way
for their unweighted mean, which then is not the server's encoder). No client sees another's weights in the moments.

Two controls, neither of them the paper's, ask what the term does. `term: l1` leaves out the denominator: beta * P. With
`damping` the negatives keep their directions from srv, but their spread d becomes its running mean over rounds,

    d_t <- damping * d_(t-1) + (1 - damping) * sum_k ||prev_k - srv||_1,   prev_k <- srv + d_t / sum * (prev_k - srv)

so that a round in which the encoders hardly moved does not leave the next one free; P / N keeps its bound.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Received, ServerState, Upload, Vector
from fedsim.algorithms.contrastive import (
    contrastive_ratio,
    gaussian_deviation,
    moment_ratio_and_gradient,
    ratio_and_gradient,
)
from fedsim.algorithms.learner import Learner
from fedsim.models.base import is_encoder

__all__ = ["FedMRI", "contrastive_ratio"]

_GRID = 36
"""Of sums of offsets from the server's encoder. Half of 2^-36 is 7e-7 of an offset of 1e-5; the sum over clients of
their largest offsets must stay below 2^15, which is 3.2 each for 10,000 clients, 1000 for 32."""
_PAPER_CLIENTS = 4


class FedMRI(Algorithm):
    """The encoder is shared, with a contrastive term on it; the decoder never leaves its client."""

    name: Literal["fedmri"] = Field("fedmri", description="Method.")
    beta: float = Field(100.0, ge=0, description="Weight of the contrastive term; 0 leaves it out.")
    beta_scaling: Literal["fixed", "clients"] = Field(
        "fixed",
        description="clients: beta is multiplied by the number of negatives / 4, the paper's number of clients.",
    )
    negatives: Literal["auto", "exact", "moments"] = Field(
        "auto",
        description="Last round's encoders one by one (exact), or as a Gaussian over clients at a cost that does not "
        "grow with them (moments); auto: exact up to exact_up_to clients in a round.",
    )
    exact_up_to: int = Field(32, ge=0, description="Clients in a round up to which negatives: auto is exact.")
    own: bool = Field(True, description="Whether a client's own last upload is among its negatives, as in the paper.")
    term: Literal["ratio", "l1"] = Field(
        "ratio",
        description="What beta weighs: P / N as in the paper (ratio), or P alone, a pull to the server's encoder that "
        "needs no negatives (l1; its beta is far smaller).",
    )
    damping: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the negatives' spread that is kept from round to round: the spread is then its running "
        "mean; 0: that of the last round, as in the paper.",
    )

    def shares(self, parameter: str) -> bool:
        """The encoders of all domains."""
        return is_encoder(parameter)

    def settled(self, cohort: int) -> Self:
        """The method with `negatives: auto` replaced by exact or moments."""
        if self.negatives != "auto":
            return self
        return self.model_copy(update={"negatives": "exact" if cohort <= self.exact_up_to else "moments"})

    def overlapping(self) -> Algorithm:
        """The method whose clients always send how far they have moved."""
        return _Overlapping(**self.model_dump())

    @property
    def sends_drift(self) -> bool:
        """Whether moments need the mean of what clients send beside the new encoder, which it is not."""
        return self.weighting != "uniform"

    @property
    def _contrasts(self) -> bool:
        """Whether there are negatives."""
        return self.beta > 0 and self.term == "ratio"

    # Server

    def uploads(self, phase: str) -> list[Upload]:
        """The encoder; it is kept as a negative, or else how far it is from the server's is summed up."""
        if not self._contrasts:
            return [Upload("shared")]
        if self.negatives != "moments":
            return [Upload("shared", collected=True)]
        offsets = ["distance", "drift"] if self.sends_drift else ["distance"]
        return [Upload("shared"), *(Upload(name, weighted=False, grid=_GRID) for name in offsets)]

    def broadcast(self, server: ServerState, phase: str) -> Mapping[str, Vector]:
        """The mean encoder and, from round 2 on, the encoders it is the mean of, or their moments and number."""
        kept = {"spread", "scale"} if self.own else {"spread"}  # by the server
        sent = {name: vector for name, vector in server.items() if name not in kept}
        return {**sent, "count": sent["count"].reshape(())} if "count" in sent else sent

    def update(self, server: ServerState, received: Received) -> ServerState:
        """Mean encoder and negatives."""
        state = super().update(server, received)
        if not self._contrasts:
            return state
        if self.negatives != "moments":
            state["previous"] = np.stack(received.collected["shared"])
        else:
            state |= self._moments(server["shared"], received)
        return state | self._damped(state, server.get("spread")) if self.damping else state

    def _damped(self, state: ServerState, before: Vector | None) -> ServerState:
        """The negatives with their `spread` (1,) a running mean over rounds, and the `scale` (1,) that it took.

        Args:
            state: The new encoder, and the negatives or their moments.
            before: The spread of the round before (1,), if there was one.
        """
        about, moved = state["shared"], "previous" if "previous" in state else "mean"
        own = np.abs(state["previous"] - about) if "previous" in state else state["deviation"]
        spread = own.sum(dtype=np.float64)
        mean = spread if before is None else self.damping * float(before[0]) + (1 - self.damping) * spread
        scale = np.array([mean / spread if spread else 1], np.float32)
        found = {"spread": np.array([mean], np.float32), "scale": scale}
        if moved in state:
            found[moved] = about + scale * (state[moved] - about)
        return found | ({"deviation": scale * state["deviation"]} if "deviation" in state else {})

    def _moments(self, sent: Vector, received: Received) -> ServerState:
        """Number `count` (1,) and `deviation` (P,) of the uploads, and their `mean` where it is not the new encoder.

        Args:
            sent: The server's encoder that the clients received (P,).
            received: What they sent back.
        """
        clients = len(received.phase.clients)
        weighted = "drift" in received.sums and (received.stale or self.weighting != "uniform")
        drift = received.sums["drift"] / clients if weighted else received.sums["shared"] / received.weight - sent
        deviation = gaussian_deviation(drift, received.sums["distance"] / clients)
        state = {"count": np.array([clients], np.float32), "deviation": deviation.astype(np.float32)}
        return state | ({"mean": (sent + drift).astype(np.float32)} if weighted else {})

    # Client

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Local epochs with the contrastive term on every batch but an epoch's first."""
        self.receive(learner, received)
        pull = self.regulariser(learner, received)
        for _ in range(learner.training.local_epochs):
            for index, batch in enumerate(learner.batches()):
                learner.step(batch, regulariser=pull if index else None)
        if self._contrasts and not self.own:
            learner.private.update(upload=learner.shared.clone(), upload_round=torch.tensor(learner.round))
        return self._sent(learner.shared, received["shared"])

    def _sent(self, encoder: Tensor, server: Tensor) -> dict[str, Tensor]:
        sent = {"shared": encoder}
        if self._contrasts and self.negatives == "moments":
            sent["drift"] = encoder - server
            sent["distance"] = sent["drift"].abs()
        return sent

    def regulariser(self, learner: Learner, received: Mapping[str, Tensor]) -> Callable[[], None] | None:
        """The contrastive term; None while there are no negatives."""
        if self.term == "l1":
            started = self.beta and learner.round > 1
            return partial(self._approach, learner, received["shared"]) if started else None
        own = self._own_negative(learner, received)
        uploaders = _uploaders(received)
        negatives = uploaders - (own is not None)
        if negatives < 1:
            return None
        beta = self.beta * (negatives / _PAPER_CLIENTS if self.beta_scaling == "clients" else 1)
        return partial(self._pull, learner, received, own, beta, uploaders)

    def _own_negative(self, learner: Learner, received: Mapping[str, Tensor]) -> Tensor | None:
        """The client's own encoder (P,) among the negatives, if it is not to count there."""
        kept = learner.private.get("upload_round")
        if self.own or kept is None or int(kept) != learner.round - 1 - learner.staleness:
            return None
        own, server = learner.private["upload"], received["shared"]
        return server + received["scale"] * (own - server) if "scale" in received else own

    def _approach(self, learner: Learner, server: Tensor) -> None:
        learner.shared_gradient.add_((learner.shared - server).sign_(), alpha=self.beta)

    @staticmethod
    def _pull(
        learner: Learner, received: Mapping[str, Tensor], own: Tensor | None, beta: float, uploaders: int
    ) -> None:
        theta, server = learner.shared, received["shared"]
        if "previous" in received:
            ratio, gradient = ratio_and_gradient(theta, server, received["previous"], own)
        else:
            mean, deviation = received.get("mean", server), received["deviation"]
            ratio, gradient = moment_ratio_and_gradient(theta, server, mean, deviation, uploaders, own)
        learner.shared_gradient.add_(gradient, alpha=beta)
        learner.note("contrastive_ratio", ratio)

    # Before the run

    def warnings(self, steps_per_epoch: Mapping[str, int], parameters: Collection[str]) -> list[str]:
        """The term cannot act on a client that has a single batch."""
        idle = [client for client, steps in steps_per_epoch.items() if steps < 2]
        if not idle or not self.beta:
            return []
        who = f"({idle[0]}, ...): they have" if len(idle) > 1 else f"({idle[0]}): it has"
        return [
            f"the contrastive term cannot act on {len(idle)} of {len(steps_per_epoch)} clients {who} "
            "one batch an epoch; lower training.batch_size"
        ]


class _Overlapping(FedMRI):
    """FedMRI where rounds overlap: stale uploads count less in the server's encoder, in full among the negatives."""

    @property
    def sends_drift(self) -> bool:
        """Always."""
        return True


def _uploaders(received: Mapping[str, Tensor]) -> int:
    """How many clients' encoders the server has sent, one by one or as moments."""
    if "previous" in received:
        return len(received["previous"])
    return int(received["count"]) if "count" in received else 0
