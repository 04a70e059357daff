"""LG-FedAvg: the decoder is shared, the encoder private (Liang et al., arXiv 2001.01523); FedMRI's mirror image."""

from typing import Literal

from pydantic import Field

from fedsim.algorithms.base import Algorithm
from fedsim.models.base import is_encoder


class LGFedAvg(Algorithm):
    """Every client keeps its own encoder, and all share the decoder."""

    name: Literal["lg_fedavg"] = Field("lg_fedavg", description="Method.")

    def shares(self, parameter: str) -> bool:
        """The decoders of all domains."""
        return not is_encoder(parameter)
