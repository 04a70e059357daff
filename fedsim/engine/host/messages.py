"""What the driver and its hosts tell each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.algorithms.base import Algorithm, Vector
from fedsim.core.errors import ClientError
from fedsim.models.base import Model
from fedsim.mri.metrics import Protocol
from fedsim.workload.faults import Fault

Row = dict[str, Any]
"""One row of a table by column."""


@dataclass(frozen=True)
class Setup:
    """What every host is made with."""

    algorithm: Algorithm
    model: Model
    seed: int
    threads: int
    protocol: Protocol
    channels_last: bool = False
    device: str = "cpu"
    tolerant: bool = False
    """Whether a client that fails is left out, its private state as it was, instead of failing the run."""


@dataclass(frozen=True)
class Limits:
    """What a host may use of its node, and how long it may be silent."""

    state_bytes: float = float("inf")
    """Memory for private state; the rest of it lies in a file."""
    slice_bytes: float = float("inf")
    """Memory for training slices; the rest is read from shards again and again."""
    scratch: Path | None = None
    """Folder of the file; default the system's folder for temporary files."""
    report_seconds: float = 1.0
    """Between pieces of an answer that goes on; 0: a piece a client, so that the driver knows who is at work."""


@dataclass(frozen=True)
class Task:
    """A phase of a round, as every host is told of it."""

    round: int
    """Counted from 1."""
    phase: str
    """The algorithm's name for it."""
    since: float
    """Time [s since 1970] at which it began."""


Faults = Mapping[str, Sequence[Fault]]
"""What is to go wrong on purpose, by client."""


@dataclass
class Reply:
    """What comes back from a host, in pieces: partial sums, vectors that must stay apart, ledger rows, failures."""

    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    collected: dict[str, dict[str, Vector]] = field(default_factory=dict)
    """By client, then by upload."""
    rows: list[Row] = field(default_factory=list)
    failed: dict[str, ClientError] = field(default_factory=dict)
    """Clients that failed, and are left out."""
