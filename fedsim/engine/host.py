"""A host: a plain object that holds some clients and one working network, and does what the driver asks.

A Ray actor is a host in another process; the serial backend is one host in this one. What a host returns is all that
ever leaves a client: the uploads that its method declares, and numbers for the ledger.
"""

import os
import platform
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Upload, Vector
from fedsim.algorithms.learner import Learner
from fedsim.data.evaluation import ReconstructedVolume, reconstruct_volumes
from fedsim.data.samples import SliceMemory
from fedsim.data.split import Part
from fedsim.engine import checkpoint
from fedsim.engine.aggregation import OrderFreeSum
from fedsim.engine.client import ClientSpec
from fedsim.engine.messages import Limits, Reply, Row, Setup
from fedsim.engine.process import Pace, Watch, keep_freed_memory
from fedsim.engine.states import StateStore, state_bytes
from fedsim.errors import DivergedError, InputError, RunError
from fedsim.mri.metrics import Quality, mean_quality
from fedsim.seeds import torch_stream

_NO_LIMITS = Limits()


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


def make_learner(setup: Setup, memory: SliceMemory | None = None) -> Learner:
    """The working network, initialised from the seed: the same for every host."""
    network = setup.model.build(torch_stream(setup.seed, "model"))
    return Learner(
        network, setup.algorithm.shares, device=setup.device, channels_last=setup.channels_last, memory=memory
    )


class Host:
    """Some clients with their private state. What it is asked for it gives piece by piece, so that progress shows."""

    def __init__(self, setup: Setup, clients: tuple[ClientSpec, ...], limits: Limits = _NO_LIMITS) -> None:
        torch.set_num_threads(setup.threads)
        keep_freed_memory()
        self._setup, self._limits = setup, limits
        self._slices = SliceMemory(limits.slice_bytes, setup.device)
        self._learner = make_learner(setup, self._slices)
        self._clients = {client.name: client for client in clients}
        self._states = StateStore(self._learner.fresh_state, limits.state_bytes, limits.scratch)

    # Rounds

    def train(
        self, round_: int, phase: str, weights: Mapping[str, float], broadcast: Mapping[str, Vector], since: float
    ) -> Iterator[Reply]:
        """Let the named clients do a phase of a round, one after the other; `partial_sums` has what they add up to.

        Args:
            round_: Counted from 1.
            phase: The algorithm's name for it.
            weights: Weight of each client that takes part.
            broadcast: What the server sends; read-only.
            since: Time [s since 1970] at which the phase began.
        """
        received, uploads = self._on_device(broadcast), self._uploads(phase)
        self._sums: dict[str, OrderFreeSum] = {}
        reply, pace = Reply(), Pace()
        for name, following in pairwise([*weights, ""]):
            self._states.expect(following)
            begun, watch = time.time(), Watch(self._slices)
            with self._at_work(name, round_, received) as learner:
                watch.lap("load")
                made = {"buffers": learner.shared_buffers, **self._setup.algorithm.train(learner, received, phase)}
                watch.lap("train")
                noted = _means(learner, f"client {name}, round {round_}")
                state = learner.leave()
            self._states.put(name, state)
            sent = {upload.name: made[upload.name].cpu().numpy() for upload in uploads}
            for upload in uploads:
                vector = sent[upload.name]
                if upload.summed:
                    total = self._sums.setdefault(upload.name, OrderFreeSum(vector.size, upload.grid))
                    weight = weights[name] if upload.weighted else 1.0
                    total.add(vector, weight, f"client {name}, round {round_}")
                if upload.collected:
                    reply.collected.setdefault(name, {})[upload.name] = vector.copy()
            watch.lap("send")
            down = self._setup.algorithm.downlink(name, broadcast, phase)
            reply.rows.append({
                **self._who(round_, name), "weight": weights[name], "loss": float("nan"), **noted,
                "wait_seconds": max(0.0, begun - since), **watch.seconds(), "private_bytes": state_bytes(state),
                "uplink_bytes": sum(vector.nbytes for vector in sent.values()),
                "downlink_bytes": sum(broadcast[key].nbytes for key in down),
            })  # fmt: skip
            if reply.collected or pace.due():
                yield reply
                reply = Reply()
        yield reply

    def partial_sums(self) -> Reply:
        """The sums of the uploads of the last phase; a call of its own, since large pieces of a stream are slow."""
        return Reply(sums={name: total.total for name, total in self._sums.items()})

    def validate(
        self, round_: int, names: tuple[str, ...], broadcast: Mapping[str, Vector], since: float
    ) -> Iterator[dict[str, Row]]:
        """Mean validation quality over the volumes of each named client that has any; over sites if it has several.

        Args:
            round_: Counted from 1.
            names: Clients to validate.
            broadcast: What the server has after the round.
            since: Time [s since 1970] at which validation began.
        """
        received = self._on_device(broadcast)
        means, pace = dict[str, Row](), Pace()
        for name in names:
            begun = time.time()
            sites: dict[str, list[Quality]] = {}
            for volume in self._reconstruct(round_, name, received, "val"):
                sites.setdefault(volume.site, []).append(volume.quality(self._setup.protocol))
            if sites:
                quality = mean_quality([mean_quality(volumes) for volumes in sites.values()])._asdict()
                times = {"evaluate_begin_seconds": max(0.0, begun - since), "evaluate_seconds": time.time() - begun}
                means[name] = {**quality, **times, **_here()}
            if pace.due():
                yield means
                means = {}
        yield means

    def evaluate(
        self, round_: int, names: tuple[str, ...], broadcast: Mapping[str, Vector], part: Part, images: Path | None
    ) -> Iterator[list[Row]]:
        """Score the named clients' volumes of a part, one row a volume; saves the images if a folder is given."""
        received, pace = self._on_device(broadcast), Pace()
        rows: list[Row] = []
        for name in names:
            for volume in self._reconstruct(round_, name, received, part):
                who = {"round": round_, "client": name}
                rows.append({**who, "protocol": self._setup.protocol, **volume.score(self._setup.protocol)})
                if images is not None:
                    own = len(self._clients[name].data.members) == 1
                    volume.save(images / (name if own else volume.site) / f"{volume.piece.volume}.h5")
            if pace.due():
                yield rows
                rows = []
        yield rows

    # Private state: to and from checkpoints, and to another host of the node

    def layouts(self, names: tuple[str, ...]) -> Iterator[dict[checkpoint.Layout, list[str]]]:
        """What a checkpoint will have to hold of the named clients: those whose states look alike, together."""
        alike: dict[checkpoint.Layout, list[str]] = {}
        for name in names:
            layout = checkpoint.client_layout(self._states.layout(name), self._learner.local_layout)
            alike.setdefault(layout, []).append(name)
        yield alike

    def save(self, folder: Path, files: Mapping[str, Sequence[str]]) -> Iterator[int]:
        """Write clients' private state into the files that are laid out for it in a checkpoint's folder."""
        for file, names in files.items():
            states = ((name, self._states.take(name)) for name in names)
            checkpoint.fill(folder / file, states, self._learner.local_layout)
        yield len(files)

    def load(self, folder: Path, files: Mapping[str, Sequence[str]]) -> Iterator[int]:
        """Take up clients' private state from their files in a checkpoint's folder."""
        for file, names in files.items():
            for name, state in checkpoint.read_clients(folder / file, names, self._learner.local_layout):
                self._states.put(name, state)
        yield len(files)

    def hand_over(self, names: Sequence[str]) -> tuple[list[ClientSpec], Path]:
        """Let go of some clients: their private state goes to a folder of this node, for its next host alone."""
        folder = Path(tempfile.mkdtemp(prefix="fedsim-", dir=self._limits.scratch))
        for name in names:
            file = folder / checkpoint.own_file(name)
            layout = checkpoint.client_layout(self._states.layout(name), self._learner.local_layout)
            checkpoint.allocate(file, {name: layout})
            checkpoint.fill(file, [(name, self._states.take(name))], self._learner.local_layout)
            self._states.forget(name)
            self._slices.forget(self._clients[name].data)
        return [self._clients.pop(name) for name in names], folder

    def take_over(self, handed: tuple[list[ClientSpec], Path]) -> None:
        """Take on what another host of this node has let go of."""
        clients, folder = handed
        for client in clients:
            self._clients[client.name] = client
            file = folder / checkpoint.own_file(client.name)
            for name, state in checkpoint.read_clients(file, [client.name], self._learner.local_layout):
                self._states.put(name, state)
            file.unlink()
        folder.rmdir()

    # Within

    def _uploads(self, phase: str) -> list[Upload]:
        return uploads_of(self._setup.algorithm, phase, self._learner.fresh_server())

    def _on_device(self, broadcast: Mapping[str, Vector]) -> dict[str, Tensor]:
        return {name: tensor.to(self._learner.device) for name, tensor in as_tensors(broadcast).items()}

    def _who(self, round_: int, name: str) -> Row:
        client = self._clients[name]
        return {
            "round": round_, "client": name, "site": client.site, "samples": client.data.samples(), **_here(),
            "device": str(self._learner.device),
        }  # fmt: skip

    def _reconstruct(
        self, round_: int, name: str, received: Mapping[str, Tensor], part: Part
    ) -> Iterator[ReconstructedVolume]:
        client = self._clients[name]
        if not client.data.samples(part):
            return
        with self._at_work(name, round_, received) as learner:
            self._setup.algorithm.deploy(learner, received)
            learner.network.eval()
            size = client.training.batch_size
            yield from reconstruct_volumes(learner.network, client.data, part, size, learner.device)

    @contextmanager
    def _at_work(self, name: str, round_: int, received: Mapping[str, Tensor]) -> Iterator[Learner]:
        """The working network with a client's private state swapped in; an error says whose it was.

        Only training gives the state back to the store; looking at images changes nothing.
        """
        client = self._clients[name]
        self._learner.enter(self._states.take(name), client.data, client.training, round_, name)
        if "buffers" in received:
            self._learner.shared_buffers.copy_(received["buffers"])
        try:
            yield self._learner
        except (RunError, InputError, GeneratorExit):
            raise
        except Exception as error:
            at = f"client {name}, round {round_}, seed {self._setup.seed}"
            raise RunError(f"{at}: {type(error).__name__}: {error}") from error


def _means(learner: Learner, who: str) -> dict[str, float]:
    """The means of what a client noted in its steps.

    Raises:
        DivergedError: one is not finite; names the client.
    """
    noted = {key: float(np.mean(values)) for key, values in learner.statistics.items() if values}
    if not np.isfinite(list(noted.values())).all():
        raise DivergedError(f"{who}: the loss is not finite; lower its learning rate")
    return {**noted, "steps": len(learner.statistics["loss"])}


def _here() -> Row:
    return {"node": platform.node(), "pid": os.getpid()}


def as_tensors(vectors: Mapping[str, Vector]) -> dict[str, Tensor]:
    """Tensors on the same memory; the object store's is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {name: torch.from_numpy(vector) for name, vector in vectors.items()}
