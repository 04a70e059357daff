"""How large the things are that a run moves and keeps, told from its method and network before anything runs."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Algorithm, Phase, Received, Upload
from fedsim.algorithms.learner import Learner
from fedsim.engine.server import Server
from fedsim.engine.state import client_files as clientfiles
from fedsim.engine.state import store as states

_OPTIMIZER_VECTORS = {"rmsprop": ("square_avg",), "adam": ("exp_avg", "exp_avg_sq"), "sgd": ()}
_PROCESS = 330e6  # bytes of an actor that trains a small U-Net, with its part of what actors share
_WORKING_VECTORS = 6  # parameters, gradients, initial parameters, float64 sums, upload
_STEP = 1.2  # of what autograd keeps, for what convolutions need besides


# Private state


def private_layout(learner: Learner, optimizer: str) -> states.Layout:
    """What a client keeps after its first round, as far as the engine knows; a method may keep more."""
    layout = list(states.layout_of(learner.fresh_state()))
    for part, vector in (("shared", learner.shared), ("local", learner.local)):
        keys = _OPTIMIZER_VECTORS[optimizer] if vector.numel() else ()
        layout += [(f"optimizer.{part}.step", torch.float32, torch.Size())] if keys else []
        layout += [(f"optimizer.{part}.{key}", torch.float32, vector.shape) for key in keys]
    return tuple(layout)


def layout_bytes(layout: states.Layout) -> int:
    """Size of a state of this layout."""
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
    """Size of a checkpoint's shared.safetensors."""
    size = learner.shared.nbytes
    return 8 + size + header_bytes(tuple((name, "F32", tuple(s)) for name, s in learner.shared_layout.layout), size)


# Working memory


def process_bytes(learner: Learner, step_bytes: float) -> float:
    """Memory of an actor without its clients' private state and slices.

    Measured, within 20 %, for U-Nets of 8 to 32 channels in one and two domains at 64 to 256 pixels.

    Args:
        learner: Has the network.
        step_bytes: What autograd keeps in its largest step.
    """
    network = learner.shared.nbytes + learner.local.nbytes
    return _PROCESS + _WORKING_VECTORS * network + _STEP * step_bytes


def activation_bytes(learner: Learner, side: int) -> float:
    """What autograd keeps until the backward pass, for each pixel of a batch; counted on one slice of side^2 pixels."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    learner.network.eval()  # running statistics stay as they are
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.network(torch.ones(1, side, side, dtype=torch.complex64), torch.ones(1, side, side, dtype=torch.bool))
    learner.network.train()
    for vector in (learner.shared, learner.local, learner.shared_buffers):
        kept.pop(vector.untyped_storage().data_ptr(), None)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / side**2


# What travels


@dataclass(frozen=True)
class Exchange:
    """What a phase of a round sends from round 2 on [bytes]."""

    up: float
    """From a client."""
    down: float
    """To a client."""
    broadcast: float
    """What lies there for all clients to read."""
    summed: float
    """A host's partial sums."""
    collected: float
    """A client's vectors that the driver keeps apart until the phase ends."""


@dataclass(frozen=True)
class Traffic:
    """What a round sends and what the server keeps [bytes]."""

    phases: Mapping[str, Exchange]
    server: float
    """The server's state between rounds."""
    peak: float
    """The server's state at its largest."""


def traffic(
    algorithm: Algorithm,
    vectors: Mapping[str, int],
    cohort: int,
    population: int,
    sizes: Mapping[str, int],
    shrink: int,
) -> Traffic:
    """The method's server at work on zeros: with one client and with two, and from there to any number.

    Args:
        algorithm: Settled.
        vectors: Elements of `shared`, and of `buffers` if there are any.
        cohort: Clients in a round.
        population: Clients of the federation.
        sizes: Elements of uploads, as far as known; others are those of the vector of their name, or else as `shared`.
        shrink: Work on vectors so many times shorter; sizes are then true to about as many elements.
    """
    sizes = {name: math.ceil(size / shrink) for name, size in {**vectors, **sizes}.items()}
    one, two = (_Rehearsal(algorithm, vectors, sizes, clients, population) for clients in (1, 2))

    def at_cohort(alone: float, with_another: float) -> float:
        return shrink * (alone + (with_another - alone) * (cohort - 1))

    phases = {
        name: Exchange(*(at_cohort(getattr(a, f), getattr(two.phases[name], f)) for f in Exchange.__annotations__))
        for name, a in one.phases.items()
    }
    return Traffic(phases, at_cohort(one.kept, two.kept), at_cohort(one.peak, two.peak))


class _Rehearsal:
    """Two rounds of a method's server on zeros."""

    def __init__(
        self, algorithm: Algorithm, vectors: Collection[str], sizes: Mapping[str, int], clients: int, population: int
    ) -> None:
        self._algorithm, self._sizes, self._population = algorithm, sizes, population
        self._names = tuple(f"{number}" for number in range(clients))
        self.phases: dict[str, Exchange] = {}
        self._server = Server(algorithm, {name: np.zeros(sizes[name], np.float32) for name in vectors})
        self.kept = self.peak = _nbytes(self._server.state)
        for round_ in (1, 2):
            for phase in one_of_each(hooks.phases(algorithm, self._names, round_, 0)):
                self._phase(phase)
            self.kept = _nbytes(self._server.state)

    def _phase(self, phase: Phase) -> None:
        uploads, broadcast = self._server.uploads(phase.name), self._server.broadcast(phase.name)
        down = hooks.downlink(self._algorithm, self._names[0], broadcast, phase.name)
        zeros = {upload.name: np.zeros(self._size(upload), np.float32) for upload in uploads}
        self.phases[phase.name] = Exchange(
            _nbytes(zeros), sum(broadcast[name].nbytes for name in down), _nbytes(broadcast),
            sum(2 * zeros[u.name].nbytes for u in uploads if u.summed),
            sum(zeros[u.name].nbytes for u in uploads if u.collected),
        )  # fmt: skip
        sums = {upload.name: np.zeros(self._size(upload)) for upload in uploads if upload.summed}
        collected = {u.name: [zeros[u.name]] * len(phase.clients) for u in uploads if u.collected}
        with np.errstate(all="ignore"):
            self._server.take_up(Received(phase, sums, 1.0, collected, self._population))
        self.peak = max(self.peak, _nbytes(self._server.state))

    def _size(self, upload: Upload) -> int:
        return self._sizes.get(upload.name, self._sizes["shared"])


def one_of_each(phases: Collection[Phase]) -> list[Phase]:
    """The first phase of each name."""
    return list({phase.name: phase for phase in reversed(list(phases))}.values())[::-1]


def _nbytes(vectors: Mapping[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]) -> int:
    return sum(vector.nbytes for vector in vectors.values())
