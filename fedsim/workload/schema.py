"""The workload's schema: what a workload file may say, with defaults, ranges and descriptions.

Sections that are also the thing they describe live beside their code (masks, sources, networks, algorithms, training),
those of the federation and the engine in this folder; this file joins them.
"""

from pydantic import Field, model_validator

from fedsim.algorithms import hooks
from fedsim.algorithms.catalogue import AnyAlgorithm
from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.learner import Training
from fedsim.core.section import Name, Section, Tag
from fedsim.models.reconstruction import AnyModel, UNetModel
from fedsim.workload.engine import Engine
from fedsim.workload.faults import Fault
from fedsim.workload.metrics import Metrics
from fedsim.workload.sites import Federation, Matrix, Site

MODELS = (UNetModel,)
"""Every known network; a new one joins here."""


def _remedy(matrix: Matrix, pools: int) -> str:
    """What would make a matrix and the number of pools fit each other."""
    step = 2**pools
    larger = [max(2 * step, -(-side // step) * step) for side in matrix]
    fewer = [n for n in range(1, pools) if all(side % 2**n == 0 and side >= 2 ** (n + 1) for side in matrix)]
    return (f"set model.pools to at most {fewer[-1]}, or " if fewer else "") + f"take {larger}"


class Workload(Section):
    """A simulation: who takes part, what they train, by which method, and how."""

    name: Name = Field(description="Name of the workload; the default run folder is runs/NAME.")
    tags: tuple[Tag, ...] = Field(
        (), max_length=32, description="Words to find the run by, in reports and comparisons; they change nothing."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Root of every random stream.")
    federation: Federation = Field(description="The sites.")
    model: AnyModel = Field(default_factory=UNetModel, description="The network every client trains.")
    algorithm: AnyAlgorithm = Field(default_factory=FedMRI, description="The federated method.")
    training: Training = Field(default_factory=Training, description="Local training.")
    engine: Engine = Field(default_factory=Engine, description="How the simulation runs; no effect on training.")
    metrics: Metrics = Field(default_factory=Metrics, description="How images are judged.")
    faults: tuple[Fault, ...] = Field((), description="What goes wrong on purpose, to study robustness.")
    provenance: dict[str, str] | None = Field(None, description="Versions and machine, written by fedsim.")

    @model_validator(mode="after")
    def _matrices_fit(self) -> "Workload":
        step = 2**self.model.pools
        for where, matrix in [
            ("federation.matrix", self.federation.matrix),
            *((f"site {site.name}: matrix", site.matrix) for site in self.federation.sites if site.matrix),
        ]:
            if any(side % step or side < 2 * step for side in matrix):
                raise ValueError(
                    f"{where}: {list(matrix)} must be multiples of {step} (2^model.pools), at least {2 * step}: "
                    f"every pool halves the matrix, and the lowest level needs 2 x 2 pixels to be normalised; "
                    f"{_remedy(matrix, self.model.pools)}"
                )
        return self

    @model_validator(mode="after")
    def _somebody_can_interrupt(self) -> "Workload":
        if self.engine.backend == "serial" and self.engine.client_timeout_s is not None:
            raise ValueError("engine.client_timeout_s: needs engine.backend=ray; nobody can interrupt a serial run")
        return self

    @model_validator(mode="after")
    def _stops_by_validation(self) -> "Workload":
        if self.training.early_stopping is None:
            return self
        if not self.metrics.every:
            raise ValueError("training.early_stopping: needs validation; set metrics.every to 1 or more")
        default = self.federation.split
        if not any((site.split or default).val for site in self.federation.sites if not site.unseen):
            raise ValueError("training.early_stopping: no site has validation data; set federation.split.val above 0")
        return self

    def settled(self) -> "Workload":
        """The workload with everything decided that its method leaves open until the number of clients is known."""
        clients = self.federation.clients or len(self.federation.expanded_sites())
        return self.model_copy(update={"algorithm": hooks.settled(self.algorithm, self.training.cohort(clients))})

    def training_of(self, site: Site) -> Training:
        """Local training with the site's overrides."""
        return self.training.model_copy(update=site.training.model_dump(exclude_none=True))
