"""The section `metrics`: how images are scored, and whose."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedsim.core.section import InsidePath, Section, distinct
from fedsim.core.seeds import numpy_stream
from fedsim.mri.metrics import Protocol
from fedsim.mri.references import Reference

FEW = 256
"""The most clients of a federation that are all listed, validated, and shown in every round."""


class Metrics(Section):
    """How images are scored, and whose."""

    protocol: Protocol = Field("fastmri", description="fastmri: over the volume; slice: each slice separately.")
    references: Annotated[tuple[Reference, ...], AfterValidator(distinct)] = Field(
        (), description="Reconstructions without training to score beside zero-filled images in evaluations: "
        "conjugate (filling by conjugate symmetry, of images without phase), sense (CG-SENSE, of several coils), "
        "tv (total variation). Made once for each volume and mask, and kept beside the shard.")  # fmt: skip
    boxes: InsidePath | None = Field(
        None, description="Table of boxes around findings, as fastMRI+ has it (.csv), relative to federation.root; "
        "evaluations then score what is inside, too.")  # fmt: skip
    every: int = Field(1, ge=0, description="Rounds between validations; 0: never during training.")
    clients: Literal["all", "cohort"] | Annotated[int, Field(ge=1)] | None = Field(
        None, description="Whose images are scored, after a round and in the test at the end: all clients', those "
        "drawn for the round (cohort), or those of N clients, the same in every round; default all up to "
        "256 clients, then cohort.")  # fmt: skip

    def scores_all(self, clients: int) -> bool:
        """Whether every client is scored, given their number."""
        return self.clients == "all" or (self.clients is None and clients <= FEW)

    def count(self, clients: int, cohort: int) -> int:
        """Number of clients that are scored after a round, given the number of all and the size of its cohort."""
        if self.scores_all(clients):
            return clients
        return min(self.clients, clients) if isinstance(self.clients, int) else cohort

    def scored(self, clients: int, cohort: list[int], seed: int) -> list[int]:
        """The places of the clients that are scored after a round, ascending.

        Args:
            clients: Number of all clients.
            cohort: Places of those drawn for the round, ascending.
            seed: The workload's.
        """
        if self.scores_all(clients):
            return list(range(clients))
        if not isinstance(self.clients, int):
            return cohort
        size = self.count(clients, len(cohort))
        return sorted(numpy_stream(seed, "scored").choice(clients, size=size, replace=False).tolist())
