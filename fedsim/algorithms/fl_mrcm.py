"""FL-MRCM: FedAvg, and source sites' latent features aligned with target sites' (Guo et al., CVPR 2021, 2103.02148).

A round has two phases. In `features` every client sends latent features of some slices under the received model. In
`align` every client trains, and on each batch it is a source for one target, the other clients in turn. A separate
discriminator for each target learns to distinguish the two sites' features; the encoder learns to pass for the target:

    encoder and decoder:   MSE + lam * BCE(D(z_source), target)
    discriminator:         BCE(D(z_source), source) + BCE(D(z_target), target)

Here z are the latent vectors at single positions, so that sites with different matrices can be aligned; features are
detached at the target, which the paper moves too. Features cross, images and k-space don't.
"""

from collections.abc import Collection, Mapping
from functools import partial
from itertools import chain, cycle
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fedsim.algorithms.base import Algorithm, Phase, Received, ServerState, Upload, Vector
from fedsim.algorithms.flat import FlatParameters
from fedsim.algorithms.learner import Learner
from fedsim.algorithms.optimizers import load_optimizer, optimizer_state
from fedsim.algorithms.training import State
from fedsim.core.seeds import torch_stream
from fedsim.data.batch import Batch
from fedsim.models.reset import reset

_PREFIX = "features."
_WIDTH = 64  # of the discriminator
_SOURCE, _TARGET = 1.0, 0.0


class FLMRCM(Algorithm):
    """Everything is shared; the discriminators, one for each pair of a source and a target, stay with the source."""

    lockstep: ClassVar[bool] = True

    name: Literal["fl_mrcm"] = Field("fl_mrcm", description="Method.")
    lam: float = Field(0.01, ge=0, description="Weight of the adversarial term.")
    discriminator_lr: float = Field(1e-4, gt=0, description="Learning rate of the discriminators (Adam).")
    feature_slices: int = Field(16, ge=1, description="Slices whose latent features a client sends in a round.")

    def phases(self, cohort: tuple[str, ...], round_: int, seed: int) -> list[Phase]:
        """Everyone's features first, then everyone's training."""
        return [Phase(cohort, "features"), Phase(cohort, "align")]

    def uploads(self, phase: str) -> list[Upload]:
        """Features, one by one; then the model."""
        return [Upload("features", summed=False, collected=True)] if phase == "features" else [Upload("shared")]

    def broadcast(self, server: ServerState, phase: str) -> Mapping[str, Vector]:
        """The model, and for the alignment every client's features."""
        return {name: v for name, v in server.items() if name == "shared" or name.startswith(_PREFIX)}

    def downlink(self, client: str, broadcast: Collection[str], phase: str) -> Collection[str]:
        """For the alignment only the others' features: the model is there already."""
        if phase == "features":
            return broadcast
        return [name for name in broadcast if name.startswith(_PREFIX) and name != _PREFIX + client]

    def update(self, server: ServerState, received: Received) -> ServerState:
        """Features are kept until the model that made them is replaced."""
        if received.phase.name == "align":
            return super().update(server, received)
        sent = zip(received.phase.clients, received.collected["features"], strict=True)
        return {"shared": server["shared"], **{_PREFIX + client: features for client, features in sent}}

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        """Send features, or train and align."""
        self.receive(learner, received)
        if phase == "features":
            return {"features": self._features(learner)}
        pairs = [
            _Pair(learner, name.removeprefix(_PREFIX), received[name], self.discriminator_lr)
            for name in self._in_turn(learner, received)
        ]
        epochs = chain.from_iterable(learner.batches() for _ in range(learner.training.local_epochs))
        for pair, batch in zip(cycle(pairs or [None]), epochs):  # as many as there are batches
            if pair is None:
                learner.step(batch)
            else:
                learner.step(batch, loss=partial(self._loss, learner, pair))
                pair.learn()
        for pair in pairs:
            learner.private.update(pair.state())
        return {"shared": learner.shared}

    @staticmethod
    def _in_turn(learner: Learner, received: Mapping[str, Tensor]) -> list[str]:
        """The others' features that a round has batches for, going on where the round before stopped."""
        others = [name for name in received if name.startswith(_PREFIX) and name != _PREFIX + learner.client]
        steps = learner.training.local_epochs * learner.steps
        first = (learner.round - 1) * steps % len(others) if others else 0
        return (others[first:] + others[:first])[:steps]

    def _loss(self, learner: Learner, pair: "_Pair", batch: Batch) -> Tensor:
        output, latent = learner.network.latent(*batch.inputs)
        return learner.error(output, batch) + self.lam * pair.confusion(latent)

    @torch.no_grad()
    def _features(self, learner: Learner) -> Tensor:
        """Latent vectors, flat (slices * positions * C,), of the first slices of an epoch that is not trained on."""
        learner.network.eval()
        latents: list[Tensor] = []
        for batch in learner.data.batches(
            1, torch_stream(learner.data.seed, "features", learner.client, learner.round)
        ):
            inputs = (tensor.to(learner.device) for tensor in batch.inputs)
            latents.append(_vectors(learner.network.latent(*inputs)[1]))
            if len(latents) == self.feature_slices:
                break
        return torch.cat(latents).reshape(-1)


class _Pair:
    """A source client's discriminator for one target."""

    def __init__(self, learner: Learner, target: str, features: Tensor, lr: float) -> None:
        self._learner, self._prefix = learner, f"discriminator.{target}."
        channels = learner.network.latent_channels
        self._target = features.view(-1, channels)
        self._source = torch.empty(0, channels)
        key = (learner.client, target)
        self._draws = torch_stream(learner.data.seed, "align", *key, learner.round)
        network = _discriminator(channels, torch_stream(learner.data.seed, "discriminator", *key))
        self._network = network.to(learner.device)
        self._flat = FlatParameters(list(self._network.named_parameters()))
        self._adam = torch.optim.Adam([self._flat.vector], lr=lr)
        if f"{self._prefix}weights" in learner.private:
            self._flat.vector.data.copy_(learner.private[f"{self._prefix}weights"])
            load_optimizer(self._adam, {"weights": self._flat.vector}, learner.private, f"{self._prefix}optimizer.")

    def confusion(self, latent: Tensor) -> Tensor:
        """How little the source's latent features (B, C, h, w) look like the target's to the discriminator."""
        self._source = _vectors(latent)
        self._flat.prepare(trained=False)
        return self._error(self._source, _TARGET)

    def learn(self) -> None:
        """A step of the discriminator on the features it was just asked about, and as many of the target's."""
        source = self._source.detach()
        drawn = torch.randint(len(self._target), (len(source),), generator=self._draws)
        self._flat.prepare(trained=True)
        self._flat.gradient.zero_()
        error = self._error(source, _SOURCE) + self._error(self._target[drawn], _TARGET)
        error.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        self._learner.note("discriminator_loss", error.detach())

    def _error(self, vectors: Tensor, label: float) -> Tensor:
        logits = self._network(vectors[:, :, None, None])
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    def state(self) -> State:
        """What the client keeps."""
        kept = optimizer_state(self._adam, {"weights": self._flat.vector}, f"{self._prefix}optimizer.")
        return {f"{self._prefix}weights": self._flat.vector.data.clone(), **kept}


def _vectors(latent: Tensor) -> Tensor:
    """Latent vectors (B * h * w, C) of features (B, C, h, w)."""
    return latent.movedim(1, -1).flatten(0, -2)


def _discriminator(channels: int, generator: torch.Generator) -> nn.Module:
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(channels, _WIDTH, 1), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1))
    network = network.to_empty(device="cpu")
    reset(network, generator)
    return network
