"""Sizes of what a run sends and keeps, derived from its method and network before anything runs."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Algorithm, Phase, Received, ServerState, Upload, Vector
from fedsim.algorithms.learner import Learner
from fedsim.core.errors import MethodError
from fedsim.engine.host.uploads import Sent
from fedsim.engine.server import Server
from fedsim.engine.state import client_files as clientfiles
from fedsim.engine.state import store as states

_OPTIMIZER_VECTORS = {"rmsprop": ("square_avg",), "adam": ("exp_avg", "exp_avg_sq"), "sgd": ()}
_SHRUNK_TO = 1 << 16  # elements of a vector; enough to tell sizes by
MOST = 32
"""Number of clients that a method's server is shown; what more of them need is extrapolated from sizes."""


# Private state


def private_layout(learner: Learner, optimizer: str) -> states.Layout:
    """What a client keeps after its first round as far as the engine knows; a method may keep more."""
    layout = list(states.layout_of(learner.fresh_state()))
    for part, vector in (("shared", learner.shared), ("local", learner.local)):
        keys = _OPTIMIZER_VECTORS[optimizer] if vector.numel() else ()
        layout += [(f"optimizer.{part}.step", torch.float32, torch.Size())] if keys else []
        layout += [(f"optimizer.{part}.{key}", torch.float32, vector.shape) for key in keys]
    return tuple(layout)


def layout_bytes(layout: states.Layout) -> int:
    """Size of a state of this layout [bytes]."""
    return sum(shape.numel() * kind.itemsize for _, kind, shape in layout)


def header_bytes(layout: clientfiles.Layout, size: int, prefix: str = "") -> int:
    """What the header of a safetensors file says about tensors.

    Args:
        layout: The tensors.
        size: Bytes of the file, for the number of digits.
        prefix: Of the tensors' names.
    """
    entries = {
        prefix + name: {"dtype": kind, "shape": shape, "data_offsets": [size, size]} for name, kind, shape in layout
    }
    return len(json.dumps(entries, separators=(",", ":")))


def shared_file_bytes(learner: Learner) -> int:
    """Size of a checkpoint's shared.safetensors [bytes]."""
    size = learner.shared.nbytes
    return 8 + size + header_bytes(tuple((name, "F32", tuple(s)) for name, s in learner.flat("shared").layout), size)


# Traffic


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What a phase of a round sends from round 2 on [bytes]."""

    up: float
    """From one client."""
    down: float
    """To one client."""
    broadcast: float
    """What is stored once for all clients to read."""
    summed: float
    """A host's partial sums."""
    collected: float
    """A client's vectors that the driver keeps apart until the phase ends."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a round sends and the server keeps [bytes]."""

    phases: Mapping[str, Exchange]
    """Each phase by name; empty if unknown."""
    server: float
    """The server's state between rounds; if unknown, its initial state."""
    peak: float
    """The server's state at its largest; if unknown, its initial state."""
    unknown: str = ""
    """Why the traffic is unknown; empty if it is known."""

    @classmethod
    def untold(cls, start: ServerState, why: str) -> "Traffic":
        """The traffic of a method that cannot be derived from zeros: only the server's initial state is known."""
        return cls(phases={}, server=nbytes(start), peak=nbytes(start), unknown=why)


def traffic(
    algorithm: Algorithm,
    start: ServerState,
    sent: Sent,
    names: Sequence[str],
    cohort: int,
    shrink: float = 1.0,
) -> Traffic:
    """The traffic of a method's server if all clients send the same; a large cohort is extrapolated from part of it.

    Args:
        algorithm: Settled.
        start: `shared` (P,), and `buffers` (B,) if there are any.
        sent: A client's uploads, as far as known; others are zeros, as long as the vector of their name in `start`, or
            else as `shared`.
        names: The federation's clients.
        cohort: Clients in a round.
        shrink: How many times longer the true vectors are; sizes are then true to about as many elements.

    Raises:
        MethodError: the method cannot work on this, or is wrong.
    """
    many = min(cohort, MOST)
    all_ = _Rehearsal(algorithm, start, sent, names[:many], len(names))
    some = all_ if many == cohort else _Rehearsal(algorithm, start, sent, names[: many // 2], len(names))

    def at_cohort(of_some: float, of_all: float) -> float:
        return shrink * (of_all + (of_all - of_some) * (cohort - many) / (many - many // 2))

    phases = {
        name: Exchange(**{
            field.name: at_cohort(getattr(some.phases[name], field.name), getattr(exchange, field.name))
            for field in fields(Exchange)
        })
        for name, exchange in all_.phases.items()
    }  # fmt: skip
    kept, peak = at_cohort(some.kept, all_.kept), at_cohort(some.peak, all_.peak)
    return Traffic(phases=phases, server=kept, peak=peak)


def traffic_of_zeros(algorithm: Algorithm, start: ServerState, names: Sequence[str], cohort: int) -> Traffic:
    """The traffic of a method if all clients send zeros, on shorter vectors; unknown if the method cannot work on them.

    Args:
        algorithm: Settled.
        start: As for `traffic`.
        names: The federation's clients.
        cohort: Clients in a round.
    """
    shrink = max(1, start["shared"].size // _SHRUNK_TO)
    short = {name: np.zeros(math.ceil(vector.size / shrink), np.float32) for name, vector in start.items()}
    try:
        return traffic(algorithm, short, {}, names, cohort, shrink)
    except MethodError as error:  # the method may be right, and need what only clients can send
        return Traffic.untold(start, f"on zeros, {error}")


class _Rehearsal:
    """Two rounds of a method's server without clients."""

    def __init__(
        self, algorithm: Algorithm, start: ServerState, sent: Sent, names: Sequence[str], population: int
    ) -> None:
        self.phases: dict[str, Exchange] = {}
        self.kept = self.peak = nbytes(start)
        self._algorithm, self._sent, self._population = algorithm, sent, population
        self._names, self._start = tuple(names), start
        self._server = Server(algorithm, start)
        for round_ in (1, 2):
            for phase in one_of_each(hooks.phases(algorithm, self._names, round_, 0)):
                self._phase(phase, f"round {round_}")
            self.kept = nbytes(self._server.state)

    def _phase(self, phase: Phase, where: str) -> None:
        uploads, broadcast = self._server.uploads(phase.name, where), self._server.broadcast(phase.name, where)
        down = hooks.downlink(self._algorithm, phase.clients[0], broadcast, phase.name)
        sent = {upload.name: self._vector(upload.name) for upload in uploads}
        self.phases[phase.name] = Exchange(
            up=nbytes(sent),
            down=sum(broadcast[name].nbytes for name in down),
            broadcast=nbytes(broadcast),
            summed=sum(2 * sent[upload.name].nbytes for upload in uploads if upload.summed),
            collected=sum(sent[upload.name].nbytes for upload in uploads if upload.collected),
        )
        with np.errstate(all="ignore"):
            self._server.take_up(as_if_all(phase, uploads, sent, self._population), where)
        self.peak = max(self.peak, nbytes(self._server.state))

    def _vector(self, upload: str) -> Vector:
        """What a client sends."""
        if upload in self._sent:
            return self._sent[upload]
        return np.zeros_like(self._start.get(upload, self._start["shared"]))


def as_if_all(phase: Phase, uploads: Sequence[Upload], sent: Sent, population: int) -> Received:
    """What the server would receive if all clients of a phase sent the same; with what only stale uploads add.

    Args:
        phase: With its clients.
        uploads: What each of them sends.
        sent: The vectors, by upload.
        population: Clients of the federation.
    """
    clients = len(phase.clients)
    sums = {u.name: sent[u.name].astype(np.float64) * (1 if u.weighted else clients) for u in uploads if u.summed}
    collected = {upload.name: [sent[upload.name]] * clients for upload in uploads if upload.collected}
    return Received(phase=phase, sums=sums, weight=1.0, collected=collected, population=population, stale=True)


def one_of_each(phases: Collection[Phase]) -> list[Phase]:
    """The first phase of each name."""
    return list({phase.name: phase for phase in reversed(list(phases))}.values())[::-1]


def nbytes(vectors: Mapping[str, Vector]) -> int:
    """Size of some vectors [bytes]."""
    return sum(vector.nbytes for vector in vectors.values())
