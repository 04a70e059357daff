"""Transfer-Site: one model travels from client to client, in an order drawn anew for every round."""

from typing import ClassVar, Literal

from pydantic import Field

from fedsim.algorithms.base import Algorithm, Phase
from fedsim.core.seeds import numpy_stream


class Transfer(Algorithm):
    """Every client trains the model that the client before it left; the last one's is the round's result."""

    lockstep: ClassVar[bool] = True

    name: Literal["transfer"] = Field("transfer", description="Method.")

    def phases(self, cohort: tuple[str, ...], round_: int, seed: int) -> list[Phase]:
        """One phase a client: the mean over a phase is then that client's model."""
        order = numpy_stream(seed, "transfer", round_).permutation(len(cohort))
        return [Phase((cohort[index],)) for index in order]
