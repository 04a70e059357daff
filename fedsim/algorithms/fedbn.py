"""FedBN: everything but the norm layers is shared (Li et al., ICLR 2021, arXiv 2102.07623)."""

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field

from fedsim.algorithms.base import Algorithm
from fedsim.models.base import is_norm


class FedBN(Algorithm):
    """FedAvg but for norm layers, whose scale, shift and running statistics never leave their client."""

    name: Literal["fedbn"] = Field("fedbn", description="Method.")

    def shares(self, parameter: str) -> bool:
        """All layers but norm layers."""
        return not is_norm(parameter)

    def warnings(self, steps_per_epoch: Mapping[str, int], parameters: Collection[str]) -> list[str]:
        """Without parameters in its norm layers, a network leaves FedBN nothing to keep local."""
        if any(is_norm(parameter) for parameter in parameters):
            return []
        return [
            "FEDBN IS FEDAVG HERE: the network's norm layers have no parameters that could stay local; "
            "set model.norm to affine or batch"
        ]
