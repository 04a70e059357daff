"""A host: a plain object that holds some clients and one working network, and does what the driver asks.

A Ray actor is a host in another process; the serial backend is one host in this one. What a host returns is all that
ever leaves a client: the uploads that its method declares, and numbers for the ledger.
"""

import os
import platform
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Upload, Vector
from fedsim.algorithms.learner import Learner
from fedsim.data.evaluation import ReconstructedVolume, reconstruct_volumes
from fedsim.data.split import Part
from fedsim.engine import checkpoint
from fedsim.engine.aggregation import OrderFreeSum
from fedsim.engine.client import ClientSpec
from fedsim.errors import DivergedError, InputError, RunError
from fedsim.models.reconstruction import AnyModel
from fedsim.mri.metrics import Protocol, Quality, mean_quality
from fedsim.seeds import torch_stream

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


@dataclass(frozen=True)
class Reply:
    """What comes back from a host: partial sums, vectors that must stay apart, and ledger rows."""

    sums: dict[str, NDArray[np.float64]]
    collected: dict[str, dict[str, Vector]]
    """By client, then by upload."""
    rows: list[Row]


def uploads_of(algorithm: Algorithm, phase: str, server: Collection[str]) -> list[Upload]:
    """What clients send in a phase: the method's uploads, and with shared parameters their running statistics.

    Args:
        algorithm: The method.
        phase: Its name for a part of a round.
        server: Names in the server's state; it has `buffers` where shared layers keep running statistics.
    """
    uploads = algorithm.uploads(phase)
    travels = "buffers" in server and any(upload.name == "shared" for upload in uploads)
    return [*uploads, Upload("buffers")] if travels else uploads


def make_learner(setup: Setup) -> Learner:
    """The working network, initialised from the seed: the same for every host."""
    return Learner(setup.model.build(torch_stream(setup.seed, "model")), setup.algorithm.shares)


class Host:
    """Some clients with their private state."""

    def __init__(self, setup: Setup, clients: tuple[ClientSpec, ...]) -> None:
        torch.set_num_threads(setup.threads)
        self._setup = setup
        self._learner = make_learner(setup)
        self._clients = {client.name: client for client in clients}
        self._states = {client.name: self._learner.fresh_state() for client in clients}

    def train(
        self, round_: int, phase: str, weights: Mapping[str, float], broadcast: Mapping[str, Vector], since: float
    ) -> Reply:
        """Let the named clients do a phase of a round.

        Args:
            round_: Counted from 1.
            phase: The algorithm's name for it.
            weights: Weight of each client that takes part.
            broadcast: What the server sends; read-only.
            since: Time [s since 1970] at which the phase began.
        """
        received = as_tensors(broadcast)
        reply = Reply({}, {}, [])
        sums: dict[str, OrderFreeSum] = {}
        for name, weight in weights.items():
            begun = time.time()
            down = self._setup.algorithm.downlink(name, broadcast, phase)
            sent, statistics = self._trained(round_, phase, name, received)
            for upload in self._uploads(phase):
                vector = sent[upload.name]
                if upload.summed:
                    total = sums.setdefault(upload.name, OrderFreeSum(vector.size, upload.grid))
                    total.add(vector, weight if upload.weighted else 1.0, f"client {name}, round {round_}")
                if upload.collected:
                    reply.collected.setdefault(name, {})[upload.name] = vector.copy()
            reply.rows.append({
                "round": round_, "client": name, "site": self._clients[name].site,
                "samples": self._clients[name].data.samples(), "weight": weight, "loss": float("nan"), **statistics,
                "train_seconds": time.time() - begun, "wait_seconds": max(0.0, begun - since),
                "uplink_bytes": sum(vector.nbytes for vector in sent.values()),
                "downlink_bytes": sum(broadcast[key].nbytes for key in down),
                "node": platform.node(), "pid": os.getpid(),
            })  # fmt: skip
        reply.sums.update({name: total.total for name, total in sums.items()})
        return reply

    def _trained(
        self, round_: int, phase: str, name: str, received: Mapping[str, Tensor]
    ) -> tuple[dict[str, Vector], dict[str, float]]:
        """A client's uploads, valid until the next client's work, and the means of what it noted."""
        with self._at_work(name, round_, received) as learner:
            made = {"buffers": learner.shared_buffers, **self._setup.algorithm.train(learner, received, phase)}
            statistics = {key: float(np.mean(values)) for key, values in learner.statistics.items() if values}
            if not np.isfinite(list(statistics.values())).all():
                raise DivergedError(f"client {name}, round {round_}: the loss is not finite; lower its learning rate")
            statistics["steps"] = len(learner.statistics["loss"])
            self._states[name] = learner.leave()
        return {upload.name: made[upload.name].numpy() for upload in self._uploads(phase)}, statistics

    def _uploads(self, phase: str) -> list[Upload]:
        return uploads_of(self._setup.algorithm, phase, self._learner.fresh_server())

    def evaluate(
        self, round_: int, names: tuple[str, ...], broadcast: Mapping[str, Vector], part: Part, images: Path | None
    ) -> list[Row]:
        """Score the named clients' volumes of a part, one row a volume; saves the images if a folder is given."""
        received = as_tensors(broadcast)
        rows = []
        for name in names:
            for volume in self._reconstruct(round_, name, received, part):
                who = {"round": round_, "client": name}
                rows.append({**who, "protocol": self._setup.protocol, **volume.score(self._setup.protocol)})
                if images is not None:
                    own = len(self._clients[name].data.members) == 1
                    volume.save(images / (name if own else volume.site) / f"{volume.piece.volume}.h5")
        return rows

    def validate(self, round_: int, names: tuple[str, ...], broadcast: Mapping[str, Vector]) -> dict[str, Row]:
        """Mean validation quality over the volumes of each named client that has any; over sites if it has several."""
        received = as_tensors(broadcast)
        means: dict[str, Row] = {}
        for name in names:
            sites: dict[str, list[Quality]] = {}
            for volume in self._reconstruct(round_, name, received, "val"):
                sites.setdefault(volume.site, []).append(volume.quality(self._setup.protocol))
            if sites:
                means[name] = mean_quality([mean_quality(volumes) for volumes in sites.values()])._asdict()
        return means

    def save(self, folder: Path, names: tuple[str, ...]) -> None:
        """Write each named client's private state to `folder`."""
        for name in names:
            checkpoint.write_client(folder, name, self._states[name], self._learner.local_layout)

    def load(self, folder: Path, files: Mapping[str, str]) -> None:
        """Take up clients' private state from their files in a checkpoint's folder."""
        for name, file in files.items():
            self._states[name] = checkpoint.read_client(folder / file, name, self._learner.local_layout)

    def _reconstruct(
        self, round_: int, name: str, received: Mapping[str, Tensor], part: Part
    ) -> Iterator[ReconstructedVolume]:
        with self._at_work(name, round_, received) as learner:
            self._setup.algorithm.deploy(learner, received)
            learner.network.eval()
            client = self._clients[name]
            yield from reconstruct_volumes(learner.network, client.data, part, client.training.batch_size)

    @contextmanager
    def _at_work(self, name: str, round_: int, received: Mapping[str, Tensor]) -> Iterator[Learner]:
        """The working network with a client's private state swapped in; an error says whose it was.

        Only training writes the state back (`leave`); looking at images changes nothing.
        """
        client = self._clients[name]
        self._learner.enter(self._states[name], client.data, client.training, round_, name)
        if "buffers" in received:
            self._learner.shared_buffers.copy_(received["buffers"])
        try:
            yield self._learner
        except (RunError, InputError, GeneratorExit):
            raise
        except Exception as error:
            at = f"client {name}, round {round_}, seed {self._setup.seed}"
            raise RunError(f"{at}: {type(error).__name__}: {error}") from error


def as_tensors(vectors: Mapping[str, Vector]) -> dict[str, Tensor]:
    """Tensors on the same memory; the object store's is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {name: torch.from_numpy(vector) for name, vector in vectors.items()}
