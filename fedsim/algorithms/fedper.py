"""FedPer ("GD-GD"): all but the last layers are shared (Arivazhagan et al., arXiv 1912.00818)."""

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field

from fedsim.algorithms.base import Algorithm

FINEST = ("decoder.last", "decoder.ups.level0", "decoder.blocks.level0")
"""The finest level of a U-Net's decoder and its last layer."""


class FedPer(Algorithm):
    """FedAvg but for the head, the layers nearest to the output, which is private."""

    name: Literal["fedper"] = Field("fedper", description="Method.")
    head: tuple[str, ...] = Field(
        FINEST,
        description="Layers that stay with the client, wherever they occur: parts of their parameters' names.",
    )

    def shares(self, parameter: str) -> bool:
        """Everything but the head."""
        return not belongs(parameter, self.head)

    def warnings(self, steps_per_epoch: Mapping[str, int], parameters: Collection[str]) -> list[str]:
        """A layer that the network does not have leaves nothing private."""
        return [f"{missing}; nothing of it is private" for missing in missing_layers("head", self.head, parameters)]


def belongs(parameter: str, layers: Collection[str]) -> bool:
    """Whether a parameter is one of some layers, wherever they occur."""
    return any(f".{layer}." in f".{parameter}." for layer in layers)


def missing_layers(key: str, layers: Collection[str], parameters: Collection[str]) -> list[str]:
    """What to say of layers that no parameter belongs to.

    Args:
        key: The method's that names them.
        layers: Named there.
        parameters: Names of the network's.
    """
    unknown = [layer for layer in layers if not any(belongs(parameter, (layer,)) for parameter in parameters)]
    return [f"algorithm.{key}: the network has no {layer}" for layer in unknown]
