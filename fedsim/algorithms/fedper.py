"""FedPer ("GD-GD"): all but the last layers are shared (Arivazhagan et al., arXiv 1912.00818)."""

from typing import Literal

from pydantic import Field

from fedsim.algorithms.base import Algorithm


class FedPer(Algorithm):
    """The head, the layers nearest to the output, is private."""

    name: Literal["fedper"] = Field("fedper", description="Method.")
    head: tuple[str, ...] = Field(
        ("decoder.last", "decoder.ups.level0", "decoder.blocks.level0"),
        description="Layers that stay with the client, in every domain: the beginning of their parameters' names.",
    )

    def shares(self, parameter: str) -> bool:
        """Everything but the head."""
        _, _, within = parameter.partition(".")  # the first word is the domain
        return not any(f"{within}.".startswith(f"{layer}.") for layer in self.head)
