"""The workload's schema: the keys of a workload file, with defaults, ranges and descriptions.

Sections that are also the thing they describe are defined beside their code (masks, sources, networks, algorithms,
training), those of the federation and the engine in this folder; this file joins them.
"""

from collections.abc import Sequence

from pydantic import Field, model_validator

from fedsim.algorithms import hooks
from fedsim.algorithms.catalogue import AnyAlgorithm
from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.fl_mrcm import FLMRCM
from fedsim.algorithms.sampling import Fixed
from fedsim.algorithms.training import Training
from fedsim.core.extension import Extension
from fedsim.core.section import Name, Section, Tag
from fedsim.models.catalogue import AnyModel
from fedsim.models.reconstruction import UNetModel
from fedsim.trackers.catalogue import AnyTrackers
from fedsim.workload.engine import Engine
from fedsim.workload.faults import Fault
from fedsim.workload.metrics import FEW, Metrics
from fedsim.workload.names import POOLED, Sites
from fedsim.workload.sites import Federation, Site
from fedsim.workload.time import Time


class Workload(Section):
    """A simulation: who takes part, what they train, by which method, and how."""

    name: Name = Field(description="Name of the workload; the default run folder is runs/NAME.")
    tags: tuple[Tag, ...] = Field(
        (), max_length=32, description="Labels to find the run by, in reports and comparisons; no effect on results."
    )
    trackers: AnyTrackers = Field(
        (), description="What is told about the run: tensorboard, mlflow, wandb, or your own; no effect on results."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Root of every random stream.")
    federation: Federation = Field(description="The sites.")
    model: AnyModel = Field(default_factory=UNetModel, description="The network every client trains.")
    algorithm: AnyAlgorithm = Field(default_factory=FedMRI, description="The federated method.")
    training: Training = Field(default_factory=Training, description="Local training.")
    engine: Engine = Field(
        default_factory=Engine, description="How the simulation runs; no effect on training unless a client is dropped."
    )
    metrics: Metrics = Field(default_factory=Metrics, description="How images are scored.")
    time: Time | None = Field(None, description="Simulated time; default none.")
    faults: tuple[Fault, ...] = Field((), description="Injected faults, to study robustness.")
    provenance: dict[str, str] | None = Field(None, description="Versions and machine, written by fedsim.")

    @model_validator(mode="after")
    def _matrices_fit(self) -> "Workload":
        for where, matrix in [
            ("federation.matrix", self.federation.matrix),
            *((f"site {site.name}: matrix", site.matrix) for site in self.federation.sites if site.matrix),
        ]:
            if matrix != "native" and not self.model.fits(matrix):
                raise ValueError(f"{where}: {list(matrix)} must be {self.model.remedy(matrix)}")
        return self

    @model_validator(mode="after")
    def _coils_fit(self) -> "Workload":
        coils = self.federation.coils
        if coils != "combine" and not self.model.takes_coils:
            what = f"{coils} needs a network for several coils, and model.name={self.model.name} takes one"
            raise ValueError(f"federation.coils: {what}; set it to combine, or choose another network")
        return self

    @model_validator(mode="after")
    def _references_suit(self) -> "Workload":
        if "sense" in self.metrics.references and self.federation.coils == "combine":
            raise ValueError(
                "metrics.references: sense needs several coils; set federation.coils to keep or a number, or drop it"
            )
        return self

    @model_validator(mode="after")
    def _somebody_can_interrupt(self) -> "Workload":
        if self.engine.backend == "serial" and self.engine.client_timeout_s is not None:
            raise ValueError("engine.client_timeout_s: needs engine.backend=ray; a serial run cannot be interrupted")
        return self

    @model_validator(mode="after")
    def _knows_whom_to_drop(self) -> "Workload":
        fuse = self.training.fuse
        if fuse > 1 and self.engine.on_lost_process == "drop":
            what = f"drop needs to know which client was at work, and with training.fuse={fuse} several are"
            raise ValueError(f"engine.on_lost_process: {what}; set it to replay or abort, or training.fuse to 1")
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

    @model_validator(mode="after")
    def _time_is_told(self) -> "Workload":
        sites = [site for site in self.federation.sites if site.time or site.joins_round or site.leaves_round]
        if sites and self.time is None:
            raise ValueError(f"site {sites[0].name}: time, joins_round, leaves_round: need the section time; add it")
        if sites and self.algorithm.pools_data:
            what = f"{self.algorithm.name} holds all sites in one client"
            raise ValueError(f"site {sites[0].name}: time, joins_round, leaves_round: {what}; leave them out")
        return self

    @model_validator(mode="after")
    def _turns_take_time(self) -> "Workload":
        time, sites = self.time, [site for site in self.federation.sites if not site.unseen]
        timeless = [site.name for site in sites if time and not time.of_site(site.time).takes_time]
        keys = "time.compute.samples_per_s, uplink_mbps, downlink_mbps or latency_s"
        if time and len(timeless) == len(sites):
            raise ValueError(f"time: no turn would take any; set {keys}")
        if time and time.overlaps and timeless:
            what = f"turns of site {timeless[0]} would take none, and the server would step with those alone"
            raise ValueError(f"time: {what}; set {keys}")
        return self

    @model_validator(mode="after")
    def _turns_overlap(self) -> "Workload":
        time = self.time
        if time is None or not time.overlaps:
            return self
        clients = len(self.client_names())
        if (at_work := self.at_work) > clients:
            raise ValueError(f"time.concurrency: {at_work} cannot be at work at once, of {clients:,} clients; lower it")
        if time.uploads > at_work:
            what = f"{time.uploads} uploads never wait together with {at_work} clients at work"
            raise ValueError(f"time.buffer: {what}; lower it, or raise time.concurrency")
        if isinstance(self.training.sampler, Fixed):
            what = f"fixed would draw the same clients for every place in mode {time.mode}"
            raise ValueError(f"training.sampler: {what}; use uniform or by_samples")
        return self

    @model_validator(mode="after")
    def _a_fixed_cohort_stays(self) -> "Workload":
        moves = [site.name for site in self.federation.sites if site.joins_round or site.leaves_round]
        if moves and isinstance(self.training.sampler, Fixed):
            what = f"fixed draws the same clients in every round, and site {moves[0]} joins or leaves"
            raise ValueError(f"training.sampler: {what}; use uniform or by_samples")
        return self

    @model_validator(mode="after")
    def _regions_have_clients(self) -> "Workload":
        regions = self.time and self.time.hierarchy and self.time.hierarchy.regions
        if regions and regions > (clients := len(self.client_names())):
            raise ValueError(f"time.hierarchy.regions: {regions} of {clients:,} clients would be empty; lower it")
        return self

    @model_validator(mode="after")
    def _a_client_is_in(self) -> "Workload":
        round_ = 1
        for joins, leaves in sorted(self.federation.stays):
            round_ = round_ if joins > round_ else int(max(round_, min(leaves, self.training.rounds) + 1))
        if round_ <= self.training.rounds:
            what = f"joins_round and leaves_round leave no site for round {round_}"
            raise ValueError(f"federation.sites: {what}; let one join sooner or leave later")
        return self

    @model_validator(mode="after")
    def _method_suits_time(self) -> "Workload":
        if self.time is not None and self.time.apart and self.algorithm.lockstep:
            why = f"{self.algorithm.name} needs all clients of a round to begin with one state of the server"
            raise ValueError(f"time: {why}; set time.mode to synchronous or deadline, without time.hierarchy")
        return self

    @model_validator(mode="after")
    def _target_is_a_site(self) -> "Workload":
        target = self.algorithm.target if isinstance(self.algorithm, FLMRCM) else None
        if target is not None and self.federation.expanded_sites().place(target) is None:
            raise ValueError(f"algorithm.target: no site {target!r} takes part; name one of federation.sites")
        return self

    def settled(self) -> "Workload":
        """The workload with all choices made that its method leaves open until the number of clients is known."""
        overlapping = self.time is not None and self.time.overlaps
        return self.model_copy(update={"algorithm": hooks.settled(self.algorithm, self.uploads, overlapping)})

    @property
    def uploads(self) -> int:
        """Clients whose uploads a round of the server takes up, at most."""
        return self.time.uploads if self.time is not None and self.time.overlaps else self.at_work

    @property
    def at_work(self) -> int:
        """Clients that train at once, as a protocol has it: a cohort, or those at work in simulated time."""
        if self.time is not None and self.time.overlaps and self.time.concurrency is not None:
            return self.time.concurrency
        return self.training.drawn(len(self.client_names()))

    def client_names(self) -> Sequence[str]:
        """The names of all clients, in order."""
        return (POOLED,) if self.algorithm.pools_data else self.federation.client_names()

    @property
    def protocol(self) -> str:
        """How images are scored, as tables say it: with the target, if it is not the root sum of squares."""
        return self.federation.coil_settings.under(self.metrics.protocol)

    @property
    def by_rule(self) -> bool:
        """Whether phantom sites with a `count` become clients when they first take part, instead of at the start."""
        counted = any(site.count > 1 for site in self.federation.expanded_sites().entries)
        return counted and len(self.client_names()) > FEW

    @property
    def listed_sites(self) -> Sites[Site]:
        """The sites whose clients exist from the start."""
        sites = self.federation.expanded_sites()
        return Sites(site for site in sites.entries if site.count == 1) if self.by_rule else sites

    def extensions(self) -> list[Extension]:
        """The sections that may have a user's own class, those of training and of every site among them."""
        of_sites = (one for site in self.federation.sites for one in (site.source, site.mask))
        return [self.algorithm, self.model, self.training.loss, self.training.sampler, *of_sites, *self.trackers]

    def training_of(self, site: Site) -> Training:
        """Local training with the site's overrides."""
        return self.training.model_copy(update=site.training.model_dump(exclude_none=True))
