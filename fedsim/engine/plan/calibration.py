"""Timing a client before a run: it trains two rounds in this process as in a full cohort; the second counts.

Where clients train as one network, as many copies of it as there are rows train together, but for very large groups.
"""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import psutil
import torch

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Phase, Vector
from fedsim.algorithms.fusing import one_by_one
from fedsim.data.samples import ClientData, PooledData, SliceMemory
from fedsim.data.shard import write_shard
from fedsim.data.split import Part
from fedsim.engine.clients.sequence import Listed
from fedsim.engine.gather import Gathered
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Layouts, Row, Train, Validate
from fedsim.engine.host.training import make_learner
from fedsim.engine.host.uploads import Sent
from fedsim.engine.plan.sizes import MOST, as_if_all, one_of_each
from fedsim.engine.record.run_directory import setup_of
from fedsim.engine.serial import SerialBackend
from fedsim.engine.server import Server
from fedsim.engine.state import client_files as clientfiles
from fedsim.workload.schema import Workload

_STEPS = 8  # of a round, or a little more
_SLICES = 16  # at least, if the client has them: up to here, what some methods send grows with the slices
_TIMES = ("load_seconds", "train_seconds", "send_seconds")
_IDLE = 0.5  # of the cores used by others; below this, waiting is not due to them


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a client of ordinary size did in its second round."""

    client: ClientSpec
    """The client, with the slices that it was timed on."""
    pace: Mapping[str, float]
    """Reading and training, by phase [s for a unit of `ClientSpec.work`]."""
    fixed: Mapping[str, float]
    """The rest of a client's time, by phase [s]."""
    reading_pace: float
    """Reading and preparing training slices that do not stay in memory [s per pixel per epoch]."""
    validation_pace: float
    """Validation [s per pixel]."""
    shard_pace: float
    """Making a phantom shard [s per pixel]; 0 if its data are not phantoms."""
    private_bytes: int
    """Size of its private state [bytes]."""
    growth_bytes: int
    """By how much the private state grew in the second round [bytes]; 0 for most methods."""
    sent: Sent
    """Its uploads, by name."""
    layout: clientfiles.Layout
    """What a checkpoint holds of it."""
    others: float = 0.0
    """Number of cores that other programs used on this machine meanwhile; times are corrected for them."""


def calibrate(workload: Workload, clients: Sequence[ClientSpec], device: str = "cpu") -> Calibration:
    """Train the client of median work, or a group of it, for two rounds and validate it, on a few of its slices.

    Args:
        workload: Settled.
        clients: The federation's.
        device: Where it trains.

    Raises:
        RunError: its training failed; names the client.
        MethodError: the method raises, or does what it may not.
    """
    rows = fused_rows(workload, [client.name for client in clients])
    client = _shortened(sorted(clients, key=lambda client: client.work())[len(clients) // 2], rows)
    group = [replace(client, name=f"{client.name}{f'-{copy}' if copy else ''}") for copy in range(min(rows, MOST))]
    shard_pace = _shard_pace(client)
    cohort = workload.training.drawn(len(clients))
    others = [other.name for other in clients if other.name != client.name][: min(cohort, MOST) - 1]
    backend = SerialBackend(workload.engine.model_copy(update={"device": device}))
    try:
        setup = setup_of(workload)
        backend.start(replace(setup, fuse=min(setup.fuse, MOST)), Listed(group))
        trial = _Trial(workload, backend, [copy.name for copy in group], others)
        first, load = trial.round(1), OtherPrograms(device)
        second, validation, layout = trial.round(2), trial.validate(), trial.layout()
        busy, slower = load.measured()
    finally:
        backend.close()
    before, last = (list(of.values())[-1]["private_bytes"] for of in (first, second))
    work = max(client.work(), 1.0) * slower
    return Calibration(
        client=client,
        pace={name: (row["load_seconds"] + row["train_seconds"]) / work for name, row in second.items()},
        fixed={name: row["send_seconds"] / slower for name, row in second.items()},
        reading_pace=_reading_seconds(client) / max(pixels(client, "train"), 1.0) / slower,
        validation_pace=validation / max(pixels(client, "val"), 1.0) / slower,
        shard_pace=shard_pace / slower,
        private_bytes=last,
        growth_bytes=last - before,
        sent=trial.sent,
        layout=layout,
        others=busy,
    )


def fused_rows(workload: Workload, names: Sequence[str]) -> int:
    """Clients that train as one network; 1 if the method's train one by one."""
    cohort = tuple(names[: workload.training.drawn(len(names))])
    return 1 if one_by_one(workload.algorithm, cohort) else workload.training.fuse


def pixels(client: ClientSpec, part: Part) -> float:
    """Number of pixels of all slices of a part."""
    return float(sum(m.pixels(part) for m in client.data.members))


def pixels_of_shard(member: ClientData) -> float:
    """Number of pixels of all slices of a phantom shard."""
    volumes = member.maker.foreseen(member.matrix) if member.maker else None
    return float(sum(len(volume.slices) * math.prod(member.shape(volume.support)) for volume in volumes or ()))


class OtherPrograms:
    """How busy other programs keep this machine from now on."""

    def __init__(self, device: str) -> None:
        """Begin to measure a process whose clients train on a device of torch."""
        self._waits = device != "cpu"  # for the GPU, not for others
        self._begun = self._now()

    def measured(self) -> tuple[float, float]:
        """Number of cores that others used, and the factor by which that slowed this process (1: not at all).

        Who asks for more cores than there are gets a share of them; so what this process missed tells what others
        asked for beyond what they got.
        """
        wall, own, all_ = (now - begun for now, begun in zip(self._now(), self._begun, strict=True))
        if wall <= 0 or own <= 0:
            return 0.0, 1.0
        cores = psutil.cpu_count() or 1
        used = min(max(all_ - own, 0.0) / wall, float(cores))
        slower = 1.0 if self._waits or used < _IDLE * cores else max(1.0, wall / own)
        return max(used, cores * slower - 1.0 if slower > 1.0 else 0.0), slower

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Wall-clock time, CPU time of this process, and CPU time of all processes [s]."""
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        return time.perf_counter(), time.process_time(), busy


class _Trial:
    """One client, or several alike that train together, on a host, and a server that takes it for the whole cohort."""

    def __init__(self, workload: Workload, backend: SerialBackend, group: Sequence[str], others: list[str]) -> None:
        self._algorithm, self._backend = workload.algorithm, backend
        self._group, self._client, self._cohort = tuple(group), group[0], (group[0], *others)
        self._server = Server(workload.algorithm, make_learner(setup_of(workload)).fresh_server())
        self.sent: dict[str, Vector] = {}

    def round(self, round_: int) -> dict[str, Row]:
        """The client's row of each phase; of several, with their mean times."""
        phases = one_of_each(hooks.phases(self._algorithm, self._cohort, round_, 0))
        return {phase.name: self._phase(round_, phase) for phase in phases}

    def validate(self) -> float:
        """Time of a validation [s]; 0 if the client has no validation data."""
        order = Validate(clients=(self._client,), round=2, since=time.time())
        replies = self._backend.call(order, self._server.deployed())
        return float(sum(row["evaluate_seconds"] for reply in replies for row in reply.rows))

    def layout(self) -> clientfiles.Layout:
        """What a checkpoint holds of the client."""
        (reply,) = self._backend.call(Layouts(clients=(self._client,)))
        (layout,) = reply.layouts
        return layout

    def _phase(self, round_: int, phase: Phase) -> Row:
        uploads = self._server.uploads(phase.name, f"round {round_}")
        broadcast = self._server.broadcast(phase.name, f"round {round_}")
        alone, weights = (self._client,), dict.fromkeys(self._group, 1.0)
        gathered = Gathered(Phase(self._group, phase.name), uploads, weights, len(self._cohort))
        order = Train(clients=self._group, round=round_, phase=phase.name, since=time.time(), weights=weights)
        for reply in self._backend.call(order, broadcast):
            gathered.add(reply)
        for error in gathered.failed.values():
            raise error
        received = gathered.received()
        sent = {name: (total / len(self._group)).astype(np.float32) for name, total in received.sums.items()}
        sent |= {name: vectors[0] for name, vectors in received.collected.items()}
        self.sent |= sent
        everybody = self._cohort if len(phase.clients) == len(self._cohort) else alone
        seen = as_if_all(Phase(everybody, phase.name), uploads, sent, len(self._cohort))
        self._server.take_up(seen, f"round {round_}")
        times = {part: fmean(row[part] for row in gathered.rows) for part in _TIMES}
        return {**gathered.rows[0], **times}


def _shard_pace(client: ClientSpec) -> float:
    """Time to make a phantom shard [s per pixel], measured beside the cache; 0 if the client has none."""
    phantoms = [member for member in client.data.members if member.maker is not None]
    if not phantoms or phantoms[0].maker is None:
        return 0.0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        write_shard(phantoms[0].maker, Path(), phantoms[0].matrix, Path(folder) / "shard.h5", phantoms[0].coil_settings)
        return (time.perf_counter() - begun) / pixels_of_shard(phantoms[0])


def _reading_seconds(client: ClientSpec) -> float:
    """Time to read and prepare its training slices."""
    memory = SliceMemory()
    for _ in client.data.batches(client.training.batch_size, torch.Generator().manual_seed(0), memory):
        pass
    return memory.seconds


def _shortened(client: ClientSpec, rows: int) -> ClientSpec:
    """The client with slices for a few steps, fewer if several train together, from as few of its sites as possible."""
    epochs, batch = client.training.local_epochs, client.training.batch_size
    left: dict[Part, int] = dict.fromkeys(("train", "val"), max(_SLICES, batch * max(2, _STEPS // (epochs * rows))))
    members = []
    for member in client.data.members:
        kept = []
        for piece, support in zip(member.pieces, member.supports, strict=True):
            slices = min(piece.stop - piece.start, left.get(piece.part, 0))
            if slices:
                left[piece.part] -= slices
                kept.append((replace(piece, stop=piece.start + slices), support))
        if kept:
            members.append(replace(member, pieces=tuple(p for p, _ in kept), supports=tuple(s for _, s in kept)))
    return replace(client, data=members[0] if len(members) == 1 else PooledData(tuple(members)))
