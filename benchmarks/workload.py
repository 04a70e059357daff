"""Workload W, which the benchmarks of the engine run; see `Case`.

Imports only the standard library, so that a process that only watches a run stays small.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

Mode = Literal["train", "noop"]
Optimizer = Literal["rmsprop", "sgd"]


@dataclass(frozen=True)
class Case:
    """A federation of phantom sites with one client each, by default with 8 slices of 64 x 64 in 2 batches.

    The encoder is shared and the decoder private: FedMRI without its term.
    """

    clients: int
    channels: int = 8
    """Channels of the U-Net's first level: 8 give an encoder of 1.2 MB and a decoder of 0.8 MB, 32 18.8 and 12.2 MB."""
    _: KW_ONLY
    domain: Literal["image", "dual"] = "image"
    size: int = 64
    """Side of the matrix."""
    slices: int = 8
    """Of each client."""
    batch: int = 4
    """Slices in a step."""
    mode: Mode = "train"
    """noop: clients swap their private state in and out and return the encoder unchanged (`noop.py`)."""
    optimizer: Optimizer = "rmsprop"
    """rmsprop keeps state as large as the network for every client, sgd none."""
    evaluate: bool = False
    """Give every client 8 more slices and validate it on them after every round."""
    checkpoints: bool = False
    """Write a checkpoint after every round, instead of only after the last."""
    fuse: int = 1
    """Clients that train as one network."""
    rounds: int = 1
    overrides: tuple[str, ...] = field(default=())
    """KEY=VALUE as on fedsim's command line."""

    @property
    def title(self) -> str:
        """Its network."""
        return f"{self.domain} {self.channels}"

    def content(self, cache: Path) -> dict[str, Any]:
        """The workload file's keys."""
        val = 0.5 if self.evaluate else 0
        source = {"format": "phantom", "subjects": 2 if self.evaluate else 1, "slices": self.slices, "size": self.size}
        return {
            "name": "workload-w",
            "federation": {
                "cache": str(cache),
                "matrix": [self.size, self.size],
                "split": {"train": 1 - val, "val": val, "test": 0},
                "sites": [{"name": "P", "count": self.clients, "source": source}],
            },
            "model": {"domain": self.domain, "channels": self.channels},
            "algorithm": {"name": "noop:Noop"} if self.mode == "noop" else {"name": "fedmri", "beta": 0},
            "training": {
                "rounds": self.rounds,
                "batch_size": self.batch,
                "optimizer": self.optimizer,
                "lr": 1e-4,
                "fuse": self.fuse,
            },
            "engine": {
                "clients_per_actor": "auto",
                "checkpoint_every": int(self.checkpoints),
                "on_lost_process": "abort",  # a repeated round must not be measured
            },
            "metrics": {"every": int(self.evaluate)},
        }

    def write(self, scratch: Path) -> Path:
        """The workload file in a scratch folder; the cases of a folder share their imported data."""
        path = scratch / "workload.yaml"
        path.write_text(json.dumps(self.content(scratch / "cache")), encoding="utf-8")  # JSON is YAML
        return path

    def arguments(self, scratch: Path, out: Path) -> list[str]:
        """Arguments of `drive.py` that run this case."""
        settings = ["--set", *self.overrides] if self.overrides else []
        return [str(self.write(scratch)), str(out), *settings]


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder that is deleted with its contents; by default among the temporary files."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fedsim-benchmark-", dir=parent) as folder:
        yield Path(folder)


def free_run(scratch: Path) -> Path:
    """A run directory in a scratch folder that does not exist yet."""
    return scratch / f"run-{sum(1 for _ in scratch.glob('run-*'))}"
