"""FedAvg: the whole network is shared (McMahan et al., AISTATS 2017, arXiv 1602.05629)."""

from typing import Literal

from pydantic import Field

from fedsim.algorithms.tuning import Tuned


class FedAvg(Tuned):
    """The mean of all clients' networks, uniform or by number of slices."""

    name: Literal["fedavg"] = Field("fedavg", description="Method.")
