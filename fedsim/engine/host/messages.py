"""What the driver and its hosts tell each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsim.algorithms.base import Algorithm, Vector
from fedsim.core.errors import ClientError
from fedsim.data.split import Part
from fedsim.engine.state.client_files import Digests, FilePart, Layout
from fedsim.models.base import Model
from fedsim.mri.metrics import Protocol
from fedsim.workload.faults import Fault

Row = dict[str, Any]
"""One row of a table by column."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every host is made with."""

    algorithm: Algorithm
    model: Model
    seed: int
    threads: int
    """Of torch, in each host's process."""
    protocol: Protocol
    channels_last: bool = False
    device: str = "cpu"
    tolerant: bool = False
    """Whether a client that fails is left out, its private state as it was, instead of failing the run."""
    faulty: bool = False
    """Whether the workload lets something go wrong on purpose."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a host may use of its node, and how long it may be silent."""

    state_bytes: float = float("inf")
    """Memory for private state [bytes]; the rest of it lies in a file."""
    slice_bytes: float = float("inf")
    """Memory for training slices [bytes]; the rest is read from shards again and again."""
    scratch: Path | None = None
    """Folder of the file; default the system's folder for temporary files."""
    report_seconds: float = 1.0
    """Time between pieces of a long answer [s]; 0: a piece a client, so that the driver knows who is at work."""


NOTHING: Mapping[str, Vector] = MappingProxyType({})
"""What the server sends where it has nothing to say."""

Faults = Mapping[str, Sequence[Fault]]
"""What is to go wrong on purpose, by client."""


@dataclass(frozen=True, kw_only=True)
class _ToClients:
    """What the driver asks of the hosts of some clients."""

    clients: tuple[str, ...]
    """Names of those that are to do it."""

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """The message narrowed to some of its clients: what their host receives."""
        return replace(self, clients=names)


@dataclass(frozen=True, kw_only=True)
class Train(_ToClients):
    """Do a phase of a round, one client after the other."""

    round: int
    """Counted from 1."""
    phase: str
    """The algorithm's name for it."""
    since: float
    """Time [s since 1970] at which it began."""
    weights: Mapping[str, float]
    """By client; those of all clients of the phase sum to 1."""
    faults: Faults = field(default_factory=dict)

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """With the weights and faults of these clients alone."""
        weights = {name: self.weights[name] for name in names}
        return replace(self, clients=names, weights=weights, faults=_of(self.faults, names))


@dataclass(frozen=True, kw_only=True)
class Validate(_ToClients):
    """Score each client's validation volumes after a round; a row for each client that has any."""

    round: int
    """Counted from 1."""
    since: float
    """Time [s since 1970] at which validation began."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(_ToClients):
    """Score each client's volumes of a part of the data; a row a volume."""

    round: int
    """Of the checkpoint that is evaluated."""
    part: Part
    images: Path | None = None
    """Folder for the images; None: they are not kept."""


@dataclass(frozen=True, kw_only=True)
class Layouts(_ToClients):
    """Say what a checkpoint will have to hold of each client."""


@dataclass(frozen=True, kw_only=True)
class Save(_ToClients):
    """Write each client's private state into its file, which is laid out already."""

    folder: Path
    """Absolute."""
    files: Mapping[str, str]
    """Name of its file in the folder, by client."""
    faults: Faults = field(default_factory=dict)

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """With the files and faults of these clients alone."""
        files = {name: self.files[name] for name in names}
        return replace(self, clients=names, files=files, faults=_of(self.faults, names))


@dataclass(frozen=True, kw_only=True)
class Load(_ToClients):
    """Take up each client's private state from a checkpoint."""

    parts: Sequence[FilePart]

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """With the parts of files that hold these clients."""
        wanted = set(names)
        parts = [replace(part, clients={n: d for n, d in part.clients.items() if n in wanted}) for part in self.parts]
        return replace(self, clients=names, parts=[part for part in parts if part.clients])


@dataclass(frozen=True, kw_only=True)
class Reset(_ToClients):
    """Let each client start anew."""


Message: TypeAlias = Train | Validate | Evaluate | Layouts | Save | Load | Reset


@dataclass(kw_only=True)
class Reply:
    """A piece of what a host answers; a message fills what it asks for."""

    rows: list[Row] = field(default_factory=list)
    """Of Train (a row for the ledger a client), Validate (a row a client) and Evaluate (a row a volume)."""
    failed: dict[str, ClientError] = field(default_factory=dict)
    """Of Train: clients that failed, and are left out."""
    collected: dict[str, dict[str, Vector]] = field(default_factory=dict)
    """Of Train: vectors that stay apart, by client, then by upload."""
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Of `Host.partial_sums`: weighted sums over the host's clients, by upload."""
    layouts: dict[Layout, list[str]] = field(default_factory=dict)
    """Of Layouts: clients by what a checkpoint will have to hold of each of them."""
    digests: Digests = field(default_factory=dict)
    """Of Save: the digest of what was written, by client."""


def _of(faults: Faults, names: tuple[str, ...]) -> Faults:
    return {name: faults[name] for name in names if name in faults}
