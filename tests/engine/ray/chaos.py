"""A federation of 12 clients and 8 rounds to which terrible things happen, at moments drawn from a seed."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, write_yaml

log = logging.getLogger("chaos")
ROUNDS, CLIENTS = 8, 12
EVERYWHERE = """
from fedsim.engine.ray import tree
tree.Tree.worthwhile, tree.MOST_NODES = staticmethod(lambda hosts, nodes: True), 1
from fedsim.cli import main
main()
"""
"""`fedsim` with an adder on every node, and groups of nodes wherever there are two."""


def write_workload(folder: Path) -> Path:
    """Twelve phantom hospitals with private decoders and optimizer states; a checkpoint every round, all kept."""
    source = {"format": "phantom", "subjects": 4, "slices": 4, "size": 48, "contrast": "t1"}
    content = {
        "name": "chaos",
        "seed": 11,
        "federation": {
            "cache": str(folder / "cache"),
            "matrix": [32, 32],
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            "sites": [{"name": "H", "count": CLIENTS, "source": source, "mask": {"kind": "radial", "acceleration": 3}}],
        },
        "model": {"domain": "dual", "channels": 2, "pools": 2},
        "algorithm": {"name": "fedmri", "beta": 1},
        "training": {"rounds": ROUNDS, "batch_size": 2, "lr": 1e-3, "optimizer": "adam", "participation": 0.75},
        "engine": {"keep_last": ROUNDS},
    }
    path = folder / "chaos.yaml"
    path.write_text(write_yaml(content))
    return path


def undisturbed(workload: Path, out: Path) -> Run:
    """The run that should have been."""
    return run(load_workload(workload, ["engine.backend=serial"]), out)


@dataclass(frozen=True)
class Blow:
    """Something that dies, a while after a round has ended."""

    victim: str
    round: int
    seconds: float


def blows(seed: int, victims: list[str], most: int) -> list[Blow]:
    """One to `most` of them, in the order in which they fall; one falls early, lest the run be over before any does."""
    random = np.random.default_rng(seed)
    number = int(random.integers(1, most + 1))
    drawn = [
        Blow(str(random.choice(victims)), int(random.integers(0, until)), float(random.uniform(0, 1.5)))
        for until in [ROUNDS // 2, *[ROUNDS] * (number - 1)]
    ]
    return sorted(drawn, key=lambda blow: (blow.round, blow.seconds))


class Driver:
    """`fedsim run` in a process, started again with --resume after it was killed; it ends with all that it started."""

    def __init__(self, workload: Path, out: Path, *settings: str, environment: dict[str, str] | None = None) -> None:
        keys = [word for setting in settings for word in ("--set", setting)]
        self._command = [
            sys.executable,
            "-c",
            EVERYWHERE,
            "run",
            workload,
            "--out",
            out,
            *keys,
        ]
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        if environment and "ADDRESS" in environment:
            self._command += ["--address", environment["ADDRESS"]]
        self._out, self._log = out, out.with_suffix(".log")
        self.starts = 0
        self.start()

    def start(self) -> None:
        resume = ["--resume"] if self._out.exists() else []
        with self._log.open("ab") as log:
            self._started = subprocess.Popen([*self._command, *resume], env=self._environment, stdout=log, stderr=log)
        self.process = psutil.Process(self._started.pid)
        self.starts += 1

    @property
    def log(self) -> str:
        return self._log.read_text()

    def rounds(self) -> int:
        """The last round that has ended, whoever started it."""
        reached = [line.split()[1] for line in self.log.splitlines() if line.startswith("round ")]
        return max((int(word.partition("/")[0]) for word in reached), default=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in [*self.process.children(recursive=True), self.process]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._started.wait()

    def until(self, what: Callable[[], bool], within: float = 900) -> None:
        deadline = time.monotonic() + within
        while not what():
            assert self.status() in (None, 0), self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def status(self) -> int | None:
        return self._started.poll()

    def over(self) -> bool:
        return self.status() is not None

    def kill(self) -> None:
        self._started.kill()
        self._started.wait()


def named(prefix: str, of: psutil.Process) -> list[psutil.Process]:
    """Processes of Ray's actors of a class, at work or idle, below a process."""
    found = []
    for process in of.children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(prefix):
                found.append(process)
    return sorted(found, key=lambda process: process.pid)  # one that is dead already has no command line


def raylets(of: psutil.Process) -> list[psutil.Process]:
    """All but the head's."""
    found = [process for process in of.children(recursive=True) if process.name() == "raylet"]
    others = sorted(found, key=lambda process: process.create_time())[1:]
    return [process for process in others if process.status() != psutil.STATUS_ZOMBIE]


def strike(driver: Driver, blow: Blow, home: psutil.Process | None, seed: int) -> str:
    """Let a blow fall; what it hit. `home` has the cluster's processes, if it is not the driver's own."""
    if blow.victim == "driver":
        driver.kill()
        driver.start()
        return "driver"
    pool: list[psutil.Process] = []
    prefix = {"actor": "ray::Host", "adder": "ray::Adder"}.get(blow.victim, "")

    def found() -> bool:
        pool[:] = named(prefix, home or driver.process) if prefix or not home else raylets(home)
        return bool(pool) or driver.over() or blow.victim == "raylet"

    while True:
        driver.until(found)  # there may be none yet, after a start
        if not pool:
            return "nobody"
        victim = pool[seed % len(pool)]
        log.info("kills %d", victim.pid)
        with suppress(psutil.NoSuchProcess):  # it was ending by itself
            victim.terminate() if prefix and seed % 2 else victim.kill()  # as a preempted job, or for lack of memory
            return blow.victim


def disturbed(
    workload: Path, out: Path, seed: int, victims: list[str], home: psutil.Process | None = None,
    environment: dict[str, str] | None = None, most: int = 3,
) -> list[str]:  # fmt: skip
    """Run to the end through all blows; what was hit and when."""
    random = np.random.default_rng(seed + 1000)
    placement = str(random.choice(["1", "4", "auto"]))
    settings = ("engine.backend=ray", f"engine.clients_per_actor={placement}", "engine.retries=6")
    history = [f"{placement} clients an actor"]
    with Driver(workload, out, *settings, environment=environment) as driver:
        for blow in blows(seed, victims, most):
            driver.until(lambda blow=blow: driver.over() or driver.rounds() >= blow.round)
            time.sleep(blow.seconds)  # the moment is what is drawn
            if driver.over():
                break
            history.append(f"{strike(driver, blow, home, seed)} {blow.seconds:.2f} s after round {blow.round}")
            log.info("seed %d: %s", seed, ", ".join(history))
        driver.until(driver.over)
        assert driver.status() == 0, driver.log
    return history
