"""Runs of fedsim on one device, beside the bare loops that do the same work there; see `gpu.py`."""

import json
import shutil
import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from loop import Loop, Samples, UNet, images
from overhead import alternate
from processes import driven
from torch import nn
from workload import Case, free_run

from fedsim.algorithms.training import Precision, arithmetic
from fedsim.engine.federation import assemble
from fedsim.engine.host.kernels import kernels
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation
from fedsim.engine.state.checkpoint import read_state, segments_of
from fedsim.models.reconstruction import UNetModel
from fedsim.workload.reading import load_workload

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to take a training step."""

    graphs: bool = True
    """Whether it is captured and replayed."""
    fuse: int = 1
    """Clients that train as one network."""
    precision: Precision = "float32"
    deterministic: bool = True
    """Whether only kernels that give the same bits every time are allowed."""

    @property
    def step(self) -> str:
        """Its name in the table."""
        if self.fuse == 1:
            return "graph" if self.graphs else "eager"
        return f"fused {self.fuse}" if self.graphs else f"fused {self.fuse}, eager"

    def __str__(self) -> str:
        return f"{self.step} {self.precision}"

    def of(self, case: Case, device: str, backend: str = "serial") -> Case:
        """A case that takes its steps so."""
        settings = (
            f"engine.backend={backend}", f"engine.device={device}", f"engine.graphs={json.dumps(self.graphs)}",
            f"engine.deterministic={json.dumps(self.deterministic)}", f"training.precision={self.precision}",
        )  # fmt: skip
        return replace(case, fuse=self.fuse, overrides=(*case.overrides, *settings))


class Loops:
    """The bare loops of a case at a precision: eager, as a graph, and fused under a graph. A round is one of each."""

    def __init__(self, case: Case, precision: Precision, device: str) -> None:
        self.ms: dict[str, list[float]] = {"eager": [], "graph": [], "fused": []}
        """Milliseconds per client of each round, by loop."""
        self._device = device
        fuse = 2 if device == "cpu" else 32 if case.domain == "image" else 8
        self._clients = {"eager": fuse // 2, "graph": fuse, "fused": fuse}
        self._peak = self._base = 0
        make = partial(self._loop, case, precision)
        with kernels(device, deterministic=True):
            self._loops = {"eager": make("eager"), "graph": make("graph"), "fused": make("fused", fuse)}

    def _loop(self, case: Case, precision: Precision, name: str, fuse: int = 1) -> Loop:
        device = torch.device(self._device)
        samples = [_on(_samples(case, client), device) for client in range(self._clients[name])]
        return Loop(
            _network(case).to(device), samples, case.optimizer, batch=case.batch, fuse=fuse,
            graphs=name != "eager" and device.type == "cuda",
            arithmetic=partial(arithmetic, device, precision, mapped=fuse > 1),
        )  # fmt: skip

    def begin(self) -> None:
        """Forget the rounds so far."""
        self.ms = {name: [] for name in self.ms}
        self._peak, self._base = 0, torch.cuda.memory_allocated()
        self._mark()

    def round(self) -> float:
        """Seconds of a round of each; its memory does not count."""
        self.peak()
        with kernels(self._device, deterministic=True):
            for name, loop in self._loops.items():
                self.ms[name].append(1e3 * loop.round() / self._clients[name])
        self._mark()
        return sum(ms[-1] for ms in self.ms.values()) / 1e3

    def rounds(self, count: int) -> list[float]:
        """Seconds of each of several rounds."""
        return [self.round() for _ in range(count)]

    def peak(self) -> int:
        """The most bytes that tensors took on the GPU outside of rounds, since it began."""
        if self._device == "cuda":
            self._peak = max(self._peak, torch.cuda.max_memory_allocated() - self._base)
        return self._peak

    def _mark(self) -> None:
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()


class Bench:
    """Measures cases on a device; run directories are written to a scratch folder and removed."""

    def __init__(self, scratch: Path, device: str, pairs: int) -> None:
        self._scratch, self._device, self._pairs = scratch, device, pairs
        self._loops: dict[tuple[str, Precision], Loops] = {}

    def step(self, case: Case, way: Way) -> Row:
        """Time rounds of a case in turn with the bare loops."""
        key = case.domain, way.precision
        if key not in self._loops:
            self._loops[key] = Loops(case, way.precision, self._device)
        loops, out = self._loops[key], free_run(self._scratch)
        self._make_data(case)
        loops.begin()
        turns = alternate(way.of(case, self._device), self._pairs, loops, self._scratch, out)
        peak, clients = loops.peak(), Run(out).clients
        shutil.rmtree(out)
        first, *seconds = turns.seconds
        later = clients[clients["round"] > 1][["load_seconds", "train_seconds", "send_seconds"]].sum()
        ms = [1e3 * each / case.clients for each in seconds]
        return {
            "part": "step",
            **_described(case, way),
            "ms": statistics.median(ms),
            **{f"to_{name}": _ratio(ms, bare[1:]) for name, bare in loops.ms.items()},
            **{f"{name}_ms": statistics.median(bare[1:]) for name, bare in loops.ms.items()},
            "load": later["load_seconds"] / later["train_seconds"],
            "send": later["send_seconds"] / later["train_seconds"],
            "train_ms": 1e3 * later["train_seconds"] / case.clients / len(seconds),
            "first_seconds": first,
            "memory_gb": peak / 1e9,
        }

    def bits(self, case: Case, pair: str, one: Way, other: Way, reverse: bool = False) -> Row:
        """Whether two runs of a federation of two sites end with the same bits.

        Args:
            case: Of whose clients; their number does not count.
            pair: What is compared, for the table.
            one: How one run takes its steps.
            other: How the other does.
            reverse: Whether the other has its sites in the other order.
        """
        digests = [self._digest(case, one, False), self._digest(case, other, reverse)]
        same, promised = digests[0] == digests[1], not (reverse and one.precision == "tf32")
        return {"part": "bits", **_described(case, one), "n": 20, "pair": pair, "same": same, "promised": promised}

    def on_ray(self, case: Case, way: Way) -> Row:
        """Run a case on Ray, in a separate process: its start, its rounds, and whether it gives the same bits."""
        self._make_data(case)
        case, begun, out = replace(case, rounds=3), time.time(), free_run(self._scratch)
        with driven(*way.of(case, self._device, "ray").arguments(self._scratch, out)) as (_, events):
            at = {(event["event"], event.get("round")): event for event in events}
        return {
            "part": "ray",
            **_described(case, way),
            "begins_seconds": at["round_begins", 1]["time"] - begun,
            "first_ends_seconds": at["round_ends", 1]["time"] - begun,
            "ms": 1e3 * at["round_ends", case.rounds]["seconds"] / case.clients,
            "same_bits_as_serial": _digests(out, case.rounds) == self._run(way.of(case, self._device)),
        }

    def _make_data(self, case: Case) -> None:
        """Phantoms are made when they are first read: not while rounds are timed."""
        for client in assemble(load_workload(case.write(self._scratch)).settled()).clients:
            with client.data.open():
                pass

    def _digest(self, case: Case, way: Way, reverse: bool) -> Row:
        source = case.content(self._scratch)["federation"]["sites"][0]["source"]
        sites = [{"name": name, "count": count, "source": source} for name, count in (("A", 9), ("B", 11))]
        sites = sites[::-1] if reverse else sites
        setting = f"federation.sites={json.dumps(sites)}"
        return self._run(way.of(replace(case, rounds=2, overrides=(*case.overrides, setting)), self._device))

    def _run(self, case: Case) -> Row:
        """Digests of what a run ends with."""
        out = free_run(self._scratch)
        with Simulation(load_workload(case.write(self._scratch), case.overrides), out) as simulation:
            simulation.run()
        return _digests(out, case.rounds)


def _digests(out: Path, round_: int) -> Row:
    """Digests of the shared and of each client's private parameters after a round; the run is removed."""
    state = read_state(out, round_)
    shutil.rmtree(out)
    private = {name: digest for one in segments_of(state).values() for name, digest in one.clients.items()}
    return {"shared": state["file_digests"]["shared.safetensors"], **private}


def _described(case: Case, way: Way) -> Row:
    kernel = "deterministic" if way.deterministic else "any"
    return {"network": case.title, "n": case.clients, "step": way.step, "precision": way.precision, "kernels": kernel}


def _ratio(ours: list[float], bare: list[float]) -> float:
    """The median over pairs of rounds."""
    return statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))


def _network(case: Case) -> nn.Module:
    """The network of the bare loops."""
    torch.manual_seed(0)
    if case.domain == "image":
        return UNet(case.channels)
    return UNetModel(domain=case.domain, channels=case.channels).build(torch.Generator().manual_seed(0))


def _samples(case: Case, client: int) -> Samples:
    """A client's slices: images, or k-space and its mask, and what should come out."""
    if case.domain == "image":
        return images(client)
    generator, shape = torch.Generator().manual_seed(client), (case.slices, case.size, case.size)
    kspace = torch.randn(shape, dtype=torch.complex64, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.3
    return kspace * mask, mask, torch.rand(shape, generator=generator)


def _on(samples: Samples, device: torch.device) -> Samples:
    return tuple(part.to(device) for part in samples)
