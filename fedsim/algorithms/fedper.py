"""FedPer ("GD-GD"): all but the last layers are shared (Arivazhagan et al., arXiv 1912.00818)."""

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field

from fedsim.algorithms.base import Algorithm


class FedPer(Algorithm):
    """The head, the layers nearest to the output, is private."""

    name: Literal["fedper"] = Field("fedper", description="Method.")
    head: tuple[str, ...] = Field(
        ("decoder.last", "decoder.ups.level0", "decoder.blocks.level0"),
        description="Layers that stay with the client, wherever they occur: parts of their parameters' names.",
    )

    def shares(self, parameter: str) -> bool:
        """Everything but the head."""
        return not any(_belongs(parameter, layer) for layer in self.head)

    def warnings(self, steps_per_epoch: Mapping[str, int], parameters: Collection[str]) -> list[str]:
        """A layer that the network does not have leaves nothing private."""
        unknown = [layer for layer in self.head if not any(_belongs(parameter, layer) for parameter in parameters)]
        return [f"algorithm.head: the network has no {layer}; nothing of it is private" for layer in unknown]


def _belongs(parameter: str, layer: str) -> bool:
    return f".{layer}." in f".{parameter}."
