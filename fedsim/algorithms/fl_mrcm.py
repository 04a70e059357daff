"""FL-MRCM: FedAvg, and source sites' latent features aligned with target sites' (Guo et al., CVPR 2021, 2103.02148).

A round has two phases. In `features` every client sends latent features of some slices under the received model. In
`align` every client trains, and on each batch it is a source for one target, the other clients in turn. A separate
discriminator for each target learns to distinguish the two sites' features; the encoder learns to pass for the target:

    encoder and decoder:   loss + lam * BCE(D(z_source), target)
    discriminator:         BCE(D(z_source), source) + BCE(D(z_target), target)

Here z are the latent vectors at single positions, or as in the authors' code those of a slice, averaged over quarters
of the image and joined; sites with different matrices can be aligned either way. Features are detached at the target,
which the paper moves too. Features cross, images and k-space don't. With `target`, as in the authors' code, only that
site's features cross, and the others are its sources.
"""

from collections.abc import Collection, Mapping
from functools import partial
from itertools import cycle
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits

from fedsim.algorithms.base import Algorithm, Phase, Received, ServerState, Upload, Vector
from fedsim.algorithms.flat import FlatParameters
from fedsim.algorithms.learner import Learner
from fedsim.algorithms.optimizers import OPTIMIZERS, load_optimizer, optimizer_state
from fedsim.algorithms.training import State
from fedsim.core.seeds import torch_stream
from fedsim.data.batch import Batch
from fedsim.models.reset import reset

_PREFIX = "features."
_POSITION_WIDTH, _POOLED_WIDTH = 64, 256  # of the discriminators
_QUARTERS = 2  # along each side
_SOURCE, _TARGET = 1.0, 0.0


class FLMRCM(Algorithm):
    """FedAvg, and latent features of source sites aligned with those of target sites, by a discriminator a pair."""

    lockstep: ClassVar[bool] = True

    name: Literal["fl_mrcm"] = Field("fl_mrcm", description="Method.")
    lam: float = Field(0.01, ge=0, description="Weight of the adversarial term.")
    discriminator_lr: float = Field(1e-4, gt=0, description="Learning rate of the discriminators.")
    feature_slices: int = Field(16, ge=1, description="Slices whose latent features a client sends in a round.")
    latent: Literal["position", "pooled"] = Field(
        "position",
        description="What a discriminator looks at: the latent vector of a single position, or a slice's, averaged "
        "over the quarters of the image and joined (pooled, the authors').",
    )
    discriminator_optimizer: Literal["adam", "rmsprop"] = Field(
        "adam", description="Optimizer of the discriminators; the authors' is rmsprop."
    )
    target: str | None = Field(
        None,
        description="The site to which all others are aligned, as in the authors' code; default each to all others.",
    )

    def phases(self, cohort: tuple[str, ...], round_: int, seed: int) -> list[Phase]:
        """The targets' features first, then everyone's training; no features if the target site is not drawn."""
        targets = tuple(client for client in cohort if self._sends_features(client))
        return [*([Phase(targets, "features")] if targets else []), Phase(cohort, "align")]

    def _sends_features(self, client: str) -> bool:
        return self.target is None or self._is_the_target(client)

    def _is_the_target(self, client: str) -> bool:
        """Whether a client is one of the only target site."""
        return client.partition(".")[0] == self.target

    def uploads(self, phase: str) -> list[Upload]:
        """Features, one by one; then the model."""
        return [Upload("features", summed=False, collected=True)] if phase == "features" else [Upload("shared")]

    def broadcast(self, server: ServerState, phase: str) -> Mapping[str, Vector]:
        """The model, and for the alignment every client's features."""
        return {name: v for name, v in server.items() if name == "shared" or name.startswith(_PREFIX)}

    def downlink(self, client: str, broadcast: Collection[str], phase: str) -> Collection[str]:
        """For the alignment the features to align with; the model only where it is not there already."""
        if phase == "features":
            return broadcast
        features = {name for name in broadcast if name.startswith(_PREFIX)}
        wanted = set() if self._is_the_target(client) else features - {_PREFIX + client}
        return wanted if self._sends_features(client) else wanted | (set(broadcast) - features)

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
            _Pair(self, learner, name.removeprefix(_PREFIX), received[name])
            for name in self._in_turn(learner, received)
        ]
        batches = learner.batches(learner.training.local_epochs)
        for pair, batch in zip(cycle(pairs or [None]), batches):  # as many as there are batches
            if pair is None:
                learner.step(batch)
            else:
                learner.step(batch, loss=partial(self._loss, learner, pair))
                pair.learn()
        for pair in pairs:
            learner.private.update(pair.state())
        return {"shared": learner.shared}

    def _in_turn(self, learner: Learner, received: Mapping[str, Tensor]) -> list[str]:
        """The others' features that a round has batches for, going on where the round before stopped."""
        others = [name for name in received if name.startswith(_PREFIX) and name != _PREFIX + learner.client]
        if self._is_the_target(learner.client):
            return []
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
            latents.append(self.vectors(learner.network.latent(*inputs)[1]))
            if len(latents) == self.feature_slices:
                break
        return torch.cat(latents).reshape(-1)

    def vectors(self, latent: Tensor) -> Tensor:
        """What a discriminator looks at (n, V), of features (B, C, h, w): B h w vectors of C values, or B of 4 C."""
        if self.latent == "pooled":
            return adaptive_avg_pool2d(latent, _QUARTERS).flatten(1)
        return latent.movedim(1, -1).flatten(0, -2)

    def vector_size(self, channels: int) -> int:
        """V, the values of a vector, for features of some channels."""
        return _QUARTERS**2 * channels if self.latent == "pooled" else channels

    def discriminator(self, channels: int, generator: torch.Generator) -> nn.Module:
        """A new one, for features of some channels: logits (n, 1, 1, 1) of vectors (n, V, 1, 1)."""
        size = self.vector_size(channels)
        width = _POOLED_WIDTH if self.latent == "pooled" else _POSITION_WIDTH
        with torch.device("meta"):
            network = nn.Sequential(nn.Conv2d(size, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 1))
        network = network.to_empty(device="cpu")
        reset(network, generator)
        return network


class _Pair:
    """A source client's discriminator for one target."""

    def __init__(self, method: FLMRCM, learner: Learner, target: str, features: Tensor) -> None:
        self._method, self._learner, self._prefix = method, learner, f"discriminator.{target}."
        channels, key = learner.network.latent_channels, (learner.client, target)
        self._draws = torch_stream(learner.data.seed, "align", *key, learner.round)
        network = method.discriminator(channels, torch_stream(learner.data.seed, "discriminator", *key))
        self._network = network.to(learner.device)
        self._target = features.view(-1, method.vector_size(channels))
        self._source = self._target[:0]
        self._flat = FlatParameters(list(self._network.named_parameters()))
        self._optimizer = OPTIMIZERS[method.discriminator_optimizer]([self._flat.vector], lr=method.discriminator_lr)
        if f"{self._prefix}weights" in learner.private:
            self._flat.vector.data.copy_(learner.private[f"{self._prefix}weights"])
            load_optimizer(
                self._optimizer, {"weights": self._flat.vector}, learner.private, f"{self._prefix}optimizer."
            )

    def confusion(self, latent: Tensor) -> Tensor:
        """How little the source's latent features (B, C, h, w) look like the target's to the discriminator."""
        self._source = self._method.vectors(latent)
        self._flat.prepare(trained=False)
        return _error(self._logits(self._source), _TARGET)

    def learn(self) -> None:
        """A step of the discriminator on the features it was just asked about, and as many of the target's."""
        source = self._source.detach()
        drawn = torch.randint(len(self._target), (len(source),), generator=self._draws)
        self._flat.prepare(trained=True)
        self._flat.gradient.zero_()
        of_source, of_target = self._logits(source), self._logits(self._target[drawn])
        error = _error(of_source, _SOURCE) + _error(of_target, _TARGET)
        error.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._learner.note("discriminator_loss", error.detach())
        self._learner.note(
            "discriminator_accuracy", ((of_source > 0).double().mean() + (of_target < 0).double().mean()) / 2
        )

    def _logits(self, vectors: Tensor) -> Tensor:
        logits: Tensor = self._network(vectors[:, :, None, None])
        return logits

    def state(self) -> State:
        """What the client keeps."""
        kept = optimizer_state(self._optimizer, {"weights": self._flat.vector}, f"{self._prefix}optimizer.")
        return {f"{self._prefix}weights": self._flat.vector.data.clone(), **kept}


def _error(logits: Tensor, label: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
