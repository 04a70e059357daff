"""The floor of a scaling study: the same clients, network and batches in a bare PyTorch loop, beside the engine.

Processes on the run's own nodes, one per slot, share the clients. In a round, for each of its clients a process loads
the shared and the private parameters, runs the local epochs with a fresh optimizer, stores the private parameters, and
adds the shared ones to a running sum. There is no method's term, no Ray traffic, no optimizer state, no ledger, no
validation and no checkpoint; batches are held in memory, ready to use. The loop runs after every round of the engine,
so that both are timed on the same machine in the same state; its round ends when the slowest process does.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fedsim.algorithms.optimizers import OPTIMIZERS
from fedsim.core.seeds import torch_stream
from fedsim.data.batch import Batch
from fedsim.data.samples import SliceMemory
from fedsim.engine.federation import assemble
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Row
from fedsim.engine.host.process import keep_freed_memory
from fedsim.engine.place.machine import nodes_of
from fedsim.engine.place.node import Node
from fedsim.engine.place.placement import device_of, granted, usable
from fedsim.engine.place.schedule import spread
from fedsim.engine.record.ledger import read_table, write_table
from fedsim.workload.schema import Workload

_FILE = "floor.parquet"


def floor_seconds(run: Path) -> float:
    """Median seconds of a round of the bare loop beside a run, without the first; NaN if there was none."""
    if not (run / _FILE).exists():
        return math.nan
    seconds = read_table(run / _FILE)["seconds"]
    return float(seconds[1:].median() if len(seconds) > 1 else seconds.median())


def comparable(workload: Workload, nodes: Sequence[Node]) -> bool:
    """Whether a run trains as the bare loop does: on the CPU, one client at a time, in float32."""
    training = workload.training
    return training.fuse == 1 and training.precision == "float32" and device_of(workload.engine, nodes) == "cpu"


class Floor:
    """Times a round of the bare loop after every round of a run, and writes the seconds to floor.parquet.

    Of a run that trains otherwise than the bare loop it times nothing.
    """

    def __init__(self, workload: Workload, run: Path) -> None:
        self._workload, self._run = workload, run
        self._processes: list[Any] = []
        before = run / _FILE
        self._rows: list[Row] = read_table(before).to_dict("records") if before.exists() else []  # type: ignore[assignment]

    def take_turn(self, row: Row) -> None:
        """Run one round of the bare loop, after the run's round with this row."""
        import ray  # noqa: PLC0415 - the run has started it

        kinds = self._workload.federation.kinds_of_needs
        nodes = usable(granted(self._workload.engine, nodes_of(ray), kinds), kinds)
        if not comparable(self._workload, nodes):
            return
        self._processes = self._processes or self._started(ray, nodes)
        begun = time.perf_counter()
        ray.get([process.round.remote() for process in self._processes])
        self._rows.append({"round": row["round"], "seconds": time.perf_counter() - begun})
        write_table(self._run / _FILE, pd.DataFrame(self._rows).drop_duplicates("round", keep="last"))

    def _started(self, ray: Any, nodes: Sequence[Node]) -> list[Any]:  # noqa: ANN401 - the module ray
        engine, clients = self._workload.engine, assemble(self._workload).clients.typical
        slots = [node.id for node in nodes for _ in range(max(1, math.floor(node.cpus / engine.threads)))]
        shares = spread(clients, min(len(slots), len(clients)))
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        loop = ray.remote(num_cpus=0, max_restarts=0)(_BareLoop)
        processes = [
            loop.options(scheduling_strategy=affinity(node, soft=False)).remote(self._workload, share)
            for node, share in zip(slots, shares, strict=False)
        ]
        ray.get([process.round.remote() for process in processes])  # warm-up: reads the data
        return processes


class _BareLoop:
    """One process of the bare loop."""

    def __init__(self, workload: Workload, clients: Sequence[ClientSpec]) -> None:
        torch.set_num_threads(workload.engine.threads)
        keep_freed_memory()
        self._network = workload.model.build(torch_stream(workload.seed, "model"), workload.federation.target)
        start, shares = self._network.state_dict(), workload.algorithm.shares
        self._shared = {name: value.clone() for name, value in start.items() if shares(name)}
        self._own = {
            client.name: {name: value.clone() for name, value in start.items() if not shares(name)}
            for client in clients
        }
        self._clients = {client.name: (client, _batches(client)) for client in clients}

    def round(self) -> None:
        """Train each client once."""
        total = {name: torch.zeros_like(value) for name, value in self._shared.items()}
        for name, (client, batches) in self._clients.items():
            self._network.load_state_dict({**self._shared, **self._own[name]})
            self._train(client, batches)
            now = self._network.state_dict()
            self._own[name] = {key: now[key].clone() for key in self._own[name]}
            for key, value in total.items():
                value.add_(now[key])

    def _train(self, client: ClientSpec, batches: Sequence[Batch]) -> None:
        training = client.training
        optimizer = OPTIMIZERS[training.optimizer](self._network.parameters(), lr=training.lr)
        for _ in range(training.local_epochs):
            for batch in batches:
                optimizer.zero_grad()
                output: Tensor = self._network(*batch.inputs)
                training.loss(output, batch.target).backward()  # type: ignore[no-untyped-call]
                optimizer.step()


def _batches(client: ClientSpec) -> list[Batch]:
    return list(client.data.batches(client.training.batch_size, torch.Generator().manual_seed(0), SliceMemory()))
