"""Injected faults, for studies of robustness and for the tests of fedsim itself.

A client's own faults (`raise`, `nan`, and `corrupt` in training) are part of what the run computes: they strike
whenever that client trains in that round. Faults of the machine (`kill`, `delay`, `disk_full`, and `corrupt` of a
checkpoint) strike only once, even if the round is repeated or the run is resumed; no number depends on them.
"""

import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedsim.core.section import Section
from fedsim.core.seeds import numpy_stream

CHECKPOINT = "checkpoint"
_PHASES = {
    "raise": "train", "nan": "train", "delay": "train", "kill": "train or checkpoint",
    "corrupt": "train or checkpoint", "disk_full": CHECKPOINT,
}  # fmt: skip


class InjectedError(Exception):
    """The exception of a client under the fault `raise`."""


class Fault(Section):
    """A fault injected into clients: one or any, in one round or in all."""

    kind: Literal["kill", "raise", "nan", "delay", "corrupt", "disk_full"] = Field(
        description="kill: the client's process dies (SIGKILL). raise: an exception. nan: the upload has a NaN. delay: "
        "the client takes `seconds` longer. corrupt: a flipped bit, in the upload or, at phase checkpoint, in the "
        "client's file. disk_full: the checkpoint finds no space."
    )
    client: str | None = Field(None, description="Name of the client; default any.")
    round: int | None = Field(None, ge=1, description="Round; default every round.")
    phase: str = Field(
        "", description="train (any training phase), one of the method's phases by name, or checkpoint; default "
        "checkpoint for disk_full, else train.")  # fmt: skip
    probability: float = Field(1.0, gt=0, le=1, description="Probability per client per round, drawn from the seed.")
    seconds: float = Field(10.0, ge=0, le=86_400, description="Of a delay.")

    @model_validator(mode="after")
    def _happens_somewhere(self) -> "Fault":
        if (self.kind == "disk_full") != (self.at == CHECKPOINT) and self.kind not in ("kill", "corrupt"):
            raise ValueError(f"phase: {self.phase!r} is not where {self.kind} can strike; use {_PHASES[self.kind]}")
        return self

    @property
    def at(self) -> str:
        """The phase it strikes in."""
        return self.phase or (CHECKPOINT if self.kind == "disk_full" else "train")

    @property
    def once(self) -> bool:
        """Whether it is a fault of the machine, which strikes once; one of a client strikes in every repetition."""
        return self.kind in ("kill", "delay", "disk_full") or self.at == CHECKPOINT

    def strike(self) -> None:
        """Apply a fault that strikes before a client's work: die, wait, or raise."""
        match self.kind:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "delay":
                time.sleep(self.seconds)
            case "raise":
                raise InjectedError("a fault of the workload (faults: kind raise)")
            case "disk_full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def spoil(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """An upload (P,) after the fault."""
        if self.kind not in ("nan", "corrupt") or not vector.size:
            return vector
        spoiled = vector.copy()
        middle = vector.size // 2
        if self.kind == "nan":
            spoiled[middle] = np.nan
        else:
            spoiled.view(np.uint32)[middle] ^= np.uint32(1 << 23)  # the exponent's last bit: twice or half the value
        return spoiled


def flip_a_bit(file: Path) -> None:
    """Change one bit in the middle of a file."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        (byte,) = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 1]))


@dataclass(frozen=True)
class Due:
    """A fault that strikes a client."""

    index: int
    """Its index in the workload's list."""
    client: str
    fault: Fault


def by_client(found: Iterable[Due]) -> dict[str, list[Fault]]:
    """Faults by client, each client's in the order of the workload."""
    sorted_out: dict[str, list[Fault]] = {}
    for one in found:
        sorted_out.setdefault(one.client, []).append(one.fault)
    return sorted_out


def due(faults: Sequence[Fault], seed: int, clients: Sequence[str], round_: int, phase: str) -> Iterator[Due]:
    """The faults that strike some clients in a phase of a round.

    Args:
        faults: All faults of the workload.
        seed: Seed of the workload, from which faults with a probability are drawn.
        clients: Participating clients.
        round_: Counted from 1.
        phase: A phase of the method, or `checkpoint`.
    """
    for index, fault in enumerate(faults):
        here = fault.at == phase or (fault.at == "train" and phase != CHECKPOINT)
        if here and fault.round in (None, round_):
            for client in clients if fault.client is None else {fault.client} & set(clients):
                key = ("fault", index, client, round_, phase)
                if fault.probability == 1 or numpy_stream(seed, *key).random() < fault.probability:
                    yield Due(index, client, fault)
