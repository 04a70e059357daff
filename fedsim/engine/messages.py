"""What the driver and its hosts tell each other."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.algorithms.base import Algorithm, Vector
from fedsim.models.reconstruction import AnyModel
from fedsim.mri.metrics import Protocol

Row = dict[str, Any]
"""One row of a table by column."""


@dataclass(frozen=True)
class Setup:
    """What every host is made with."""

    algorithm: Algorithm
    model: AnyModel
    seed: int
    threads: int
    protocol: Protocol
    channels_last: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Limits:
    """What a host may use of its node."""

    state_bytes: float = float("inf")
    """Memory for private state; the rest of it lies in a file."""
    slice_bytes: float = float("inf")
    """Memory for training slices; the rest is read from shards again and again."""
    scratch: Path | None = None
    """Folder of the file; default the system's folder for temporary files."""


@dataclass
class Reply:
    """What comes back from a host, in pieces: partial sums, vectors that must stay apart, and ledger rows."""

    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    collected: dict[str, dict[str, Vector]] = field(default_factory=dict)
    """By client, then by upload."""
    rows: list[Row] = field(default_factory=list)
