"""The messages between the driver and its hosts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeAlias, TypeVar

from fedsim.algorithms.base import Algorithm, Vector
from fedsim.core.errors import ClientError
from fedsim.data.coils import Target
from fedsim.data.split import Part
from fedsim.engine.host.merging import Levels, Sums
from fedsim.engine.state.client_files import Digests, FilePart, Layout
from fedsim.models.base import Model
from fedsim.models.warm_start import Tensors
from fedsim.mri.metrics import Protocol
from fedsim.mri.references import Reference
from fedsim.workload.faults import Fault

_STATES = 0.4  # of a host's part of a GPU, for private state where the workload does not say
_SLICES = 0.3  # of what training leaves, at least for slices

T = TypeVar("T")

Row = dict[str, Any]
"""One row of a table by column."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every host is made with."""

    algorithm: Algorithm
    model: Model
    seed: int
    """The workload's seed."""
    threads: int
    """Of torch, in each host's process."""
    protocol: Protocol
    target: Target = "rss"
    """How the coils of the images that networks are trained to are combined."""
    references: tuple[Reference, ...] = ()
    """Reconstructions without training that evaluations score."""
    channels_last: bool = False
    device: str = "cpu"
    """torch's name of the device: cpu or cuda."""
    deterministic: bool = True
    """Whether a GPU may only use kernels that give the same bits every time."""
    graphs: bool = True
    """Whether a GPU replays captured steps."""
    fuse: int = 1
    """Clients that train as one network."""
    states: int = 1
    """States of the server that clients of a call read, at most."""
    sums: int = 1
    """Sums that their uploads enter, at most."""
    tolerant: bool = False
    """Whether a client that fails is dropped, its private state unchanged, instead of failing the run."""
    faulty: bool = False
    """Whether the workload injects faults."""
    start: Tensors | None = None
    """What networks start from, as far as it goes; the seed draws the rest."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a host may use of its node, and how often it must report."""

    state_bytes: float = float("inf")
    """Memory for private state [bytes]; the rest is kept in a file."""
    slice_bytes: float = float("inf")
    """Memory for training slices [bytes]; the rest is read from shards every time."""
    device_bytes: float | None = None
    """Memory of a whole GPU for private state [bytes]; None: two fifths of it."""
    gpu_share: float = 1.0
    """Of a GPU."""
    work_bytes: float = 0.0
    """Memory of a GPU that training takes [bytes]."""
    scratch: Path | None = None
    """Folder of the file; default the system's folder for temporary files."""
    report_seconds: float = 1.0
    """Time between pieces of a long answer [s]; 0: a piece per client, so that the driver knows which is training."""

    def on_gpu(self, usable: float) -> Self:
        """The limits on a GPU with so much usable memory [bytes]: what training leaves of the host's part is divided
        between private state, which comes first, and slices; `device_bytes` is then the host's own.
        """
        part = usable * min(self.gpu_share, 1.0)
        left = max(0.0, part - self.work_bytes)
        states = _STATES * part if self.device_bytes is None else self.device_bytes * min(self.gpu_share, 1.0)
        states = min(states, (1 - _SLICES) * left)
        return replace(self, device_bytes=states, slice_bytes=min(self.slice_bytes, left - states))


NOTHING: Mapping[str, Vector] = MappingProxyType({})
"""The broadcast of a message that needs none."""

Faults = Mapping[str, Sequence[Fault]]
"""Injected faults by client."""


@dataclass(frozen=True, kw_only=True)
class _ToClients:
    """What the driver asks the hosts of some clients to do."""

    clients: tuple[str, ...]
    """Names of the clients concerned."""

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """The message narrowed to some of its clients: what their host receives."""
        return replace(self, clients=names)


@dataclass(frozen=True, kw_only=True)
class Lot:
    """What some clients of a message read, and the sum that their uploads enter."""

    round: int
    """The round that they take part in, counted from 1."""
    staleness: int = 0
    """Rounds that the server has finished since they began."""
    reads: str = ""
    """Prefix of what they read of the broadcast."""
    enters: str = ""
    """Prefix of the sums that their uploads enter."""
    scale: float = 1.0
    """Of their parameters in the sum, beside their weight."""


@dataclass(frozen=True, kw_only=True)
class _InRound(_ToClients):
    """What clients do with something that the server sends them."""

    round: int
    """Counted from 1."""
    lots: Mapping[str, Lot] = field(default_factory=dict)
    """By client, where they do not all read the same and enter the same sum; empty where they do."""

    def lot(self, client: str) -> Lot:
        """What a client reads and enters."""
        return self.lots.get(client) or Lot(round=self.round)

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """With the lots of these clients alone."""
        return replace(self, clients=names, lots=_of(self.lots, names))


@dataclass(frozen=True, kw_only=True)
class Train(_InRound):
    """Do a phase of a round, one client after the other."""

    phase: str
    """The algorithm's name for it."""
    since: float
    """Time [s since 1970] at which it began."""
    weights: Mapping[str, float]
    """Aggregation weights by client; those of all clients of the phase sum to 1."""
    faults: Faults = field(default_factory=dict)

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """With the weights and faults of these clients alone."""
        weights, faults = _of(self.weights, names), _of(self.faults, names)
        return replace(super().for_clients(names), weights=weights, faults=faults)


@dataclass(frozen=True, kw_only=True)
class Validate(_InRound):
    """Score each client's validation volumes after a round; a row for each client that has any."""

    since: float
    """Time [s since 1970] at which validation began."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(_InRound):
    """Score each client's volumes of a part of the data after a round; one row per volume."""

    part: Part
    images: Path | None = None
    """Folder for the images; None: they are not kept."""


@dataclass(frozen=True, kw_only=True)
class Layouts(_ToClients):
    """Return the layout of each client's private state in a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Save(_ToClients):
    """Write each client's private state into its file, whose layout exists already."""

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
    """Load each client's private state from a checkpoint."""

    parts: Sequence[FilePart]

    def for_clients(self, names: tuple[str, ...]) -> Self:
        """With the parts of files that hold these clients."""
        wanted = set(names)
        parts = [replace(part, clients={n: d for n, d in part.clients.items() if n in wanted}) for part in self.parts]
        return replace(self, clients=names, parts=[part for part in parts if part.clients])


@dataclass(frozen=True, kw_only=True)
class Reset(_ToClients):
    """Reset each client to its initial state."""


Message: TypeAlias = Train | Validate | Evaluate | Layouts | Save | Load | Reset


@dataclass(kw_only=True)
class Reply:
    """A piece of a host's answer; only the fields that the message asks for are filled."""

    rows: list[Row] = field(default_factory=list)
    """Of Train and Validate (one ledger row per client) and Evaluate (one row per volume)."""
    failed: dict[str, ClientError] = field(default_factory=dict)
    """Of Train: clients that failed and are dropped."""
    collected: dict[str, dict[str, Vector]] = field(default_factory=dict)
    """Of Train: vectors that are not summed, by client, then by upload."""
    sums: Sums = field(default_factory=dict)
    """Of Train: weighted sums over the clients of a host or of a node, by upload."""
    levels: Levels = field(default_factory=dict)
    """With sums: what has been added on the way."""
    layouts: dict[Layout, list[str]] = field(default_factory=dict)
    """Of Layouts: clients by the layout of their private state."""
    digests: Digests = field(default_factory=dict)
    """Of Save: the digest of what was written, by client."""


def under(prefix: str, vectors: Mapping[str, T]) -> dict[str, T]:
    """What has a prefix to its name, without it."""
    return {name.removeprefix(prefix): vector for name, vector in vectors.items() if name.startswith(prefix)}


def prefixed(vectors: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    """Vectors by prefix and name, in one mapping from which `under` takes those of a prefix."""
    return {prefix + name: vector for prefix, own in vectors.items() for name, vector in own.items()}


def _of(by_client: Mapping[str, T], names: tuple[str, ...]) -> dict[str, T]:
    return {name: by_client[name] for name in names if name in by_client}
