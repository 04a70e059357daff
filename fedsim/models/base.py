"""The interface of a network to the engine and the methods, and the workload section that describes a network.

All networks map measured k-space and its mask to a magnitude image. Methods recognise parameters by name: a parameter
belongs to the encoder if one component of its dotted name is `encoder`, and to a norm layer if one begins with `norm`.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedsim.core.errors import InputError, OwnCodeError
from fedsim.core.extension import Extension, blamed, traced
from fedsim.data.coils import Target
from fedsim.models.reset import reset

_LEAST = 16  # the smallest side of a matrix


class Network(nn.Module):
    """Maps measured k-space and its mask to a magnitude image; derive from it and write `forward`.

    If coils are kept, k-space is (B, C, H, W). A network that uses their sensitivities sets `takes_maps`, and is given
    `maps` (B, C, H, W) complex as a third argument; None stands for one coil of sensitivity 1.

    A network with latent features between an encoder and a decoder writes `with_latent` and `latent_channels` instead.
    """

    takes_maps: ClassVar[bool] = False
    """Whether it is called with the sensitivities of the coils."""
    label = ""
    """Its name in the workload, if it is a user's own."""
    target: Target = "rss"
    """How the coils of the images that it is trained to are combined: `federation.target`."""

    def __call__(self, kspace: Tensor, mask: Tensor, maps: Tensor | None = None) -> Tensor:
        """The image (B, H, W) float.

        Raises:
            OwnCodeError: a user's own network raised, or returned an invalid value.
        """
        inputs = self._inputs(kspace, mask, maps)
        if not self.label:
            output: Tensor = super().__call__(*inputs)
            return output
        with traced(self.label, "forward"):
            found = super().__call__(*inputs)
        self._expect(found, mask.shape, "forward")
        return found  # type: ignore[no-any-return]

    @property
    def latent_channels(self) -> int:
        """C, the number of channels of the latent features; 0 without any."""
        return 0

    def _inputs(self, kspace: Tensor, mask: Tensor, maps: Tensor | None) -> tuple[Any, ...]:
        return (kspace, mask, maps) if self.takes_maps else (kspace, mask)

    def forward(self, *inputs: Any) -> Tensor:  # noqa: ANN401 - k-space, mask and, if it takes them, maps
        """Magnitude image (B, H, W) of k-space complex, zero where `mask` (B, H, W) bool is False."""
        return self.with_latent(*inputs)[0]

    def with_latent(self, *inputs: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - as for `forward`
        """The image (B, H, W), and latent features (B, C, h, w), for methods and drawings that use them."""
        raise NotImplementedError("a network must have forward, or with_latent and latent_channels")

    def latent(self, kspace: Tensor, mask: Tensor, maps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The result of `with_latent`, after checking that it is an image and features.

        Raises:
            OwnCodeError: a user's own network raised, or returned an invalid value.
        """
        if not self.latent_channels:
            what = "has no latent features; give it with_latent and latent_channels, or choose another method"
            raise InputError(f"model.name: {self.label or type(self).__name__} {what}")
        if not self.label:
            return self.with_latent(*self._inputs(kspace, mask, maps))
        with traced(self.label, "with_latent"):
            found = self.with_latent(*self._inputs(kspace, mask, maps))
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Tensor)):
            raise OwnCodeError(f"with_latent of {self.label} must return two tensors, not {shown(found)}")
        self._expect(found[0], mask.shape, "with_latent")
        features = found[1]
        if features.dim() < 3 or features.shape[:2] != (len(kspace), self.latent_channels):
            shape = f"({len(kspace)}, latent_channels = {self.latent_channels}, h, w)"
            raise OwnCodeError(f"with_latent of {self.label} must return features {shape}, not {shown(features)}")
        return found

    def _expect(self, found: object, shape: tuple[int, ...], hook: str) -> None:
        if not (isinstance(found, Tensor) and found.shape == shape and found.is_floating_point()):
            what = f"magnitudes, a tensor of floats {tuple(shape)}"
            raise OwnCodeError(f"{hook} of {self.label} must return {what}, not {shown(found)}")


def _refuse_counting(network: nn.Module, label: str) -> None:
    """Refuse batch norm that counts its calls: the number is no running statistic, and clients would share it."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is None:
            raise InputError(f"model: {name} of {label} has momentum None; give its batch norm a momentum, such as 0.1")


def shown(found: object) -> str:
    """What a user's class returned, for messages: dtype and shape of a tensor, else its type."""
    return f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__


class Model(Extension):
    """The section `model`: the keys of a network, and building it. Derive from it and write `network`."""

    tag: ClassVar[str] = "name"
    around: ClassVar[frozenset[str]] = frozenset({"build"})

    name: str

    @property
    def takes_coils(self) -> bool:
        """Whether the network takes k-space of several coils (B, C, H, W)."""
        return False

    @property
    def multiple(self) -> int:
        """The number that every side of a matrix must be a multiple of."""
        return 1

    @property
    def smallest(self) -> int:
        """The smallest side of a matrix that the network accepts."""
        return -(-_LEAST // self.multiple) * self.multiple

    @abstractmethod
    def network(self) -> Network:
        """The network; called on the meta device, where computed values are lost; `reset_parameters` sets them."""

    def build(self, generator: torch.Generator, target: Target = "rss") -> Network:
        """The network for a target, initialised from `generator` alone; torch's global stream is left untouched.

        Raises:
            InputError: a parameter or a buffer is left unset (named); or a user's class raises or returns no network.
        """
        with blamed(self, "model", "network"):
            with torch.device("meta"):  # no memory and no random numbers until `reset`
                network = self.network()
            if not isinstance(network, Network):
                raise InputError(f"model: network of {self.label} must return a Network, not {type(network).__name__}")
            _refuse_counting(network, self.label)
            network = network.to_empty(device="cpu")
            reset(network, generator)
        network.label = self.label if self.foreign else ""
        network.target = target
        return network

    def fits(self, matrix: tuple[int, int]) -> bool:
        """Whether the network accepts a matrix [H, W]."""
        return not any(side % self.multiple or side < self.smallest for side in matrix)

    def remedy(self, matrix: tuple[int, int]) -> str:
        """The end of the message for a matrix that does not fit, after "must be"."""
        multiples = f"multiples of {self.multiple}, " if self.multiple > 1 else ""
        return f"{multiples}at least {self.smallest}; take {self.nearest(matrix)}"

    def nearest(self, matrix: tuple[int, int]) -> list[int]:
        """The next larger matrix that fits."""
        return [max(self.smallest, -(-side // self.multiple) * self.multiple) for side in matrix]


def is_encoder(parameter: str) -> bool:
    """Whether a parameter name belongs to an encoder, in either domain."""
    return "encoder" in parameter.split(".")


def is_norm(parameter: str) -> bool:
    """Whether a parameter (or running statistic) belongs to a norm layer."""
    return any(part.startswith("norm") for part in parameter.split("."))
