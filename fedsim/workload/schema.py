"""The workload's schema: what a workload file may say, with defaults, ranges and descriptions.

Sections that are also the thing they describe live beside their code (masks, sources, networks, algorithms, training);
this file joins them.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import Field, model_validator

from fedsim.algorithms import hooks
from fedsim.algorithms.catalogue import AnyAlgorithm
from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.learner import Training
from fedsim.core.section import FolderPath, Name, Section, Tag
from fedsim.data.formats.dataset import DatasetSource
from fedsim.data.partition import AnyPartition, Equal
from fedsim.data.samples import Normalise
from fedsim.data.sources import AnySource
from fedsim.data.split import Split
from fedsim.models.reconstruction import AnyModel, UNetModel
from fedsim.mri.masks import AnyMask, Equispaced
from fedsim.mri.metrics import Protocol
from fedsim.workload.faults import Fault
from fedsim.workload.resources import Resources

MODELS = (UNetModel,)
"""Every known network; a new one joins here."""

MOST_SITES = 100_000
Side = Annotated[int, Field(ge=16, le=2048)]
Matrix = tuple[Side, Side]


class SiteTraining(Section):
    """What a site does differently in local training; unset keys are the workload's."""

    local_epochs: int | None = Field(None, ge=1, description="Passes over a client's training slices in a round.")
    batch_size: int | None = Field(None, ge=1, description="Slices in a step.")
    optimizer: Literal["rmsprop", "adam", "sgd"] | None = Field(None, description="Optimizer.")
    lr: float | None = Field(None, gt=0, description="Learning rate of the first round.")
    lr_step: int | None = Field(None, ge=0, description="The learning rate falls every N rounds; 0: never.")
    lr_gamma: float | None = Field(None, gt=0, le=1, description="Factor of the learning rate every lr_step rounds.")


class Site(Section):
    """A hospital: its images, its scanner's mask, and what it does differently."""

    name: Name = Field(description="Unique name; becomes part of file names.")
    count: int = Field(
        1, ge=1, le=MOST_SITES, description="Make this many phantom sites NAME-001, NAME-002, ... from one."
    )
    source: AnySource = Field(description="Where the images come from.")
    mask: AnyMask = Field(default_factory=Equispaced, description="How k-space is undersampled.")
    matrix: Matrix | None = Field(None, description="Matrix [H, W] of this site; default the federation's.")
    split: Split | None = Field(None, description="Split of this site; default the federation's.")
    training: SiteTraining = Field(default_factory=SiteTraining, description="Overrides of training for this site.")
    resources: Resources = Field(default_factory=Resources, description="What its clients need while they train.")
    unseen: bool = Field(
        False, description="Keep the site out of the federation: `fedsim unseen RUN` tells how the run serves it."
    )

    @model_validator(mode="after")
    def _only_phantoms_multiply(self) -> "Site":
        if self.count > 1 and self.source.format != "phantom":
            raise ValueError(
                f"count: {self.count} copies of one {self.source.format} site would share their subjects; "
                "count is for phantom sites, federation.clients cuts a site into clients"
            )
        if self.count > 1 and getattr(self.source, "seed", None) is not None:
            raise ValueError("count: with source.seed set, all sites have the same subjects; leave it out")
        return self

    def expand(self) -> "list[Site]":
        """This site, or the `count` sites it stands for."""
        if self.count == 1:
            return [self]
        width = max(3, len(str(self.count)))
        names = [f"{self.name}-{index:0{width}d}" for index in range(1, self.count + 1)]
        return [self.model_copy(update={"name": name, "count": 1}) for name in names]


class Federation(Section):
    """The sites and how their subjects become clients."""

    root: FolderPath = Field(Path(), description="Folder that sources' paths are relative to; looked up from the "
                             "working directory, then from the workload file's folder.")  # fmt: skip
    cache: FolderPath = Field(
        default_factory=lambda: platformdirs.user_cache_path("fedsim") / "shards",
        description="Where imported shards are kept; runs may share it.",
    )
    clients: int | None = Field(None, ge=1, description="Number of clients; default one for each site.")
    partition: AnyPartition = Field(
        default_factory=Equal, description="How a site's training data are divided among its clients."
    )
    matrix: Matrix = Field((128, 128), description="Matrix [H, W] to train at; multiples of 2^model.pools.")
    split: Split = Field(default_factory=Split, description="Shares of a site's subjects; a site may set its own.")
    normalise: Normalise = Field("std", description="What a slice is divided by: std or max of its zero-filled image.")
    sites: tuple[Site, ...] = Field(min_length=1, description="The sites.")

    def expanded_sites(self) -> list[Site]:
        """Every site that takes part, `count` written out."""
        return [one for site in self.sites if not site.unseen for one in site.expand()]

    def unseen_sites(self) -> list[Site]:
        """Every site that takes no part, `count` written out."""
        return [one for site in self.sites if site.unseen for one in site.expand()]

    def own_datasets(self) -> list[str]:
        """The names of the user's own datasets among the sources, each once."""
        return list(dict.fromkeys(s.source.dataset for s in self.sites if isinstance(s.source, DatasetSource)))

    @model_validator(mode="after")
    def _distinct_names(self) -> "Federation":
        if sum(site.count for site in self.sites) > MOST_SITES:
            raise ValueError(f"sites: their counts come to more than {MOST_SITES:,} sites; lower count")
        sites = self.expanded_sites() + self.unseen_sites()
        counts = Counter(site.name.lower() for site in sites)
        twice = [site.name for site in sites if counts[site.name.lower()] > 1]
        if twice:
            raise ValueError(
                f"sites: two sites are named {twice[0]!r}; names must differ by more than upper and lower case"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_partition(self) -> "Federation":
        if self.clients is None and self.partition.kind != "equal":
            raise ValueError(
                f"partition: {self.partition.kind} divides a site among its clients; "
                "set federation.clients above the number of sites"
            )
        return self

    @model_validator(mode="after")
    def _somebody_trains(self) -> "Federation":
        training = [site for site in self.sites if not site.unseen]
        if not training:
            raise ValueError("sites: all are unseen; at least one must take part")
        idle = [site.name for site in training if (site.split or self.split).train == 0]
        if idle:
            raise ValueError(
                f"split: site {idle[0]} has nothing to train on; train must be above 0, or the site unseen"
            )
        return self


class Engine(Section):
    """How the simulation runs; nothing here changes training. The best round is one that has a checkpoint."""

    backend: Literal["ray", "serial"] = Field("ray", description="ray: actors; serial: this process, for debugging.")
    clients_per_actor: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="Clients that one Ray actor hosts; auto: as many actors as can train at once share them all."
    )
    threads: int = Field(1, ge=1, le=256, description="torch threads of a training client; recorded, since it can "
                         "change the last bits.")  # fmt: skip
    nodes: int | None = Field(None, ge=1, description="Number of nodes of the Ray cluster to use; default all.")
    cores: int | None = Field(
        None, ge=1, description="Number of cores to use, spread evenly over the nodes; default all."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where clients train; auto: on GPUs if Ray has any."
    )
    state_memory: float | None = Field(
        None, ge=0, le=1e6, description="Memory [GB] of a node for clients' private state; what is beyond it lies in a "
        "file in scratch. Default half of what Ray counts as the node's.")  # fmt: skip
    slice_memory: float | None = Field(
        None, ge=0, le=1e6, description="Memory [GB] of a node for training slices; what is beyond it is read from "
        "shards in every epoch. Default a fifth of what Ray counts as the node's.")  # fmt: skip
    scratch: FolderPath | None = Field(
        None, description="Folder on each node for private state beyond state_memory; default the system's for "
        "temporary files.")  # fmt: skip
    checkpoint_every: int = Field(1, ge=0, description="Rounds between checkpoints; 0: only at the end.")
    keep_last: int = Field(2, ge=1, description="Checkpoints kept besides the best round's.")
    on_failure: Literal["replay", "drop", "abort"] = Field(
        "replay", description="When a process or a node is lost: replace it, go back to the last checkpoint and "
        "replay; or do the same, but leave the client that it was working for out of that round; or stop.")  # fmt: skip
    retries: int = Field(3, ge=0, description="Consecutive losses tolerated without a new checkpoint in between.")
    client_timeout_s: float | None = Field(
        None, gt=0, description="Seconds that a client may train in a phase, reading its data included; beyond that "
        "its process is killed and counts as lost. Default no limit; needs backend ray.")  # fmt: skip
    on_error: Literal["abort", "drop"] = Field(
        "abort", description="When a client raises in its training, or its numbers are not finite, which would only "
        "repeat itself: stop, or leave the client out of that round, its private state as it was.")  # fmt: skip


class Metrics(Section):
    """How images are judged."""

    protocol: Protocol = Field("fastmri", description="fastmri: over the volume; slice: each slice for itself.")
    every: int = Field(1, ge=0, description="Rounds between validations; 0: never during training.")


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
