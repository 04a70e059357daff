"""The sections `federation` and `federation.sites`: who takes part, and with which data."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import Field, model_validator

from fedsim.core.section import FolderPath, Name, Section
from fedsim.data.batch import Normalise
from fedsim.data.coils import Coils, CoilSettings, Target
from fedsim.data.folds import Folds
from fedsim.data.formats.dataset import DatasetSource
from fedsim.data.masks import AnyMask
from fedsim.data.partition import AnyPartition, Equal
from fedsim.data.sources import AnySource
from fedsim.data.split import Split
from fedsim.mri.masks import Equispaced
from fedsim.workload.names import ClientNames, Sites, site_name
from fedsim.workload.resources import Resources
from fedsim.workload.time import SiteTime

MOST_SITES = 10_000_000
MOST_LISTED = 100_000
"""Sites that are not made by a rule: those with files, and those that take no part in training."""
Side = Annotated[int, Field(ge=16, le=2048)]
Matrix = tuple[Side, Side] | Literal["native"]


def matrix_text(matrix: Matrix) -> str:
    """A matrix for a table or a message."""
    return matrix if isinstance(matrix, str) else " × ".join(map(str, matrix))


class SiteTraining(Section):
    """A site's overrides of local training; unset keys are the workload's."""

    local_epochs: int | None = Field(None, ge=1, description="Passes over a client's training slices in a round.")
    batch_size: int | None = Field(None, ge=1, description="Slices in a step.")
    optimizer: Literal["rmsprop", "adam", "sgd"] | None = Field(None, description="Optimizer.")
    lr: float | None = Field(None, gt=0, description="Learning rate of the first round.")
    lr_step: int | None = Field(None, ge=0, description="The learning rate falls every N rounds; 0: never.")
    lr_gamma: float | None = Field(None, gt=0, le=1, description="Factor of the learning rate every lr_step rounds.")


class Site(Section):
    """A hospital: its images, its scanner's mask, and its overrides."""

    name: Name = Field(description="Unique name; becomes part of file names.")
    count: int = Field(
        1, ge=1, le=MOST_SITES, description="Make this many phantom sites NAME-001, NAME-002, ... from one."
    )
    source: AnySource = Field(description="Where the images come from.")
    mask: AnyMask = Field(default_factory=Equispaced, description="How k-space is undersampled.")
    matrix: Matrix | None = Field(None, description="Matrix of this site, [H, W] or native; default the federation's.")
    split: Split | None = Field(None, description="Split of this site; default the federation's.")
    training: SiteTraining = Field(default_factory=SiteTraining, description="Overrides of training for this site.")
    resources: Resources = Field(default_factory=Resources, description="What its clients need while they train.")
    unseen: bool = Field(
        False, description="Keep the site out of the federation; `fedsim unseen RUN` scores the run on it."
    )
    time: SiteTime | None = Field(None, description="Overrides of simulated time for this site.")
    joins_round: int | None = Field(
        None, ge=1, description="First round that its clients may be drawn for, in simulated time; default the first."
    )
    leaves_round: int | None = Field(
        None, ge=1, description="Last round that its clients may be drawn for, in simulated time; default the last."
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

    @model_validator(mode="after")
    def _stays_a_while(self) -> "Site":
        if self.unseen and (self.time or self.joins_round or self.leaves_round):
            raise ValueError("time, joins_round, leaves_round: an unseen site takes no part; leave them out")
        if self.leaves_round and self.leaves_round < (self.joins_round or 1):
            raise ValueError(f"leaves_round: {self.leaves_round} is before joins_round={self.joins_round}; raise it")
        return self

    def numbered(self, number: int) -> Self:
        """This site, or the one of a number from 1 of the `count` sites that it stands for."""
        if self.count == 1:
            return self
        return self.model_copy(update={"name": site_name(self, number), "count": 1})


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
    matrix: Matrix = Field(
        (128, 128),
        description="Matrix [H, W] to train at, multiples of 2^model.pools for a U-Net; native: each volume's own, "
        "with the phase-encoding lines that were measured.",
    )
    split: Split = Field(default_factory=Split, description="Shares of a site's subjects; a site may set its own.")
    folds: Folds | None = Field(
        None,
        description="Folds instead of shares for test; a study's `folds` sets it for each of its runs. Default: none.",
    )
    normalise: Normalise = Field("std", description="Divisor of a slice: std or max of its zero-filled image.")
    coils: Coils = Field(
        "combine", description="Coils of raw data: combine them, keep them, or the number of virtual coils to keep."
    )
    target: Target = Field(
        "rss", description="Target of several coils: rss (root sum of squares) or combined (by their sensitivities)."
    )
    sites: tuple[Site, ...] = Field(min_length=1, description="The sites.")

    @property
    def coil_settings(self) -> CoilSettings:
        """What becomes of the coils of raw data."""
        return CoilSettings(self.coils, self.target)

    @property
    def stays(self) -> list[tuple[int, float]]:
        """First and last round that each entry of the sites that take part may be drawn for."""
        return [(site.joins_round or 1, site.leaves_round or math.inf) for site in self.expanded_sites().entries]

    def expanded_sites(self) -> Sites[Site]:
        """Every site that takes part, with `count` expanded."""
        return Sites(site for site in self.sites if not site.unseen)

    @property
    def kinds_of_needs(self) -> tuple[Resources, ...]:
        """What clients of the sites that take part need, each kind once."""
        return tuple(dict.fromkeys(site.resources for site in self.expanded_sites().entries))

    def unseen_sites(self) -> Sites[Site]:
        """Every site that takes no part, with `count` expanded."""
        return Sites(site for site in self.sites if site.unseen)

    def client_names(self) -> ClientNames:
        """The names of all clients, if the method does not pool the sites."""
        return ClientNames(self.expanded_sites(), self.clients)

    def own_datasets(self) -> list[str]:
        """The names of the user's own datasets among the sources, each once."""
        return list(dict.fromkeys(s.source.dataset for s in self.sites if isinstance(s.source, DatasetSource)))

    @model_validator(mode="after")
    def _not_too_many(self) -> "Federation":
        if sum(site.count for site in self.sites) > MOST_SITES:
            raise ValueError(f"sites: their counts add up to more than {MOST_SITES:,} sites; lower count")
        if len(self.sites) > MOST_LISTED or len(self.unseen_sites()) > MOST_LISTED:
            raise ValueError(f"sites: more than {MOST_LISTED:,} of them are listed or unseen; use count, or fewer")
        return self

    @model_validator(mode="after")
    def _distinct_names(self) -> "Federation":
        taken = Sites(site.model_copy(update={"name": site.name.lower()}) for site in self.sites)
        for start in taken.starts:
            if taken.place(taken.name(start)) != start:
                twice = Sites(self.sites).name(start)
                raise ValueError(
                    f"sites: two sites are named {twice!r}; names must differ by more than upper and lower case"
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
