"""The driver: schedules rounds, gathers what clients send, lets the method update the server, and keeps the run."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pandas as pd

from fedsim.algorithms.base import Phase, Received, ServerState, Vector
from fedsim.config import Workload
from fedsim.data.split import Part
from fedsim.engine import checkpoint
from fedsim.engine.backends import WorkerLostError, make_backend
from fedsim.engine.federation import assemble
from fedsim.engine.fits import check_fits
from fedsim.engine.gather import Gathered
from fedsim.engine.host import make_learner, uploads_of
from fedsim.engine.ledger import UNKNOWN, Ledger, idle_row, joined, round_row, stamped, write_table
from fedsim.engine.messages import Row
from fedsim.engine.observer import Observer
from fedsim.engine.rundir import Run, Which, begin_run, check_manifest, check_method, check_same, setup_of
from fedsim.errors import InputError, RunError
from fedsim.seeds import numpy_stream

log = logging.getLogger("fedsim")

_REPLAYS = 3  # in a row, without a new checkpoint in between

T = TypeVar("T")


class Simulation:
    """A workload's federation, its hosts and its run directory. Use as a context manager."""

    def __init__(
        self,
        workload: Workload,
        out: str | Path,
        *,
        resume: bool = False,
        address: str | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Prepare a run: import the data, look at the run directory, bring up the backend; writes nothing yet.

        Raises:
            InputError: the workload or its data are wrong, or `out` exists and `resume` is False.
        """
        self.workload = workload = workload.settled()
        self.path, self._observer = Path(out), observer or Observer()
        going_on = self._check_out(resume)
        self._setup = setup_of(workload)
        self._algorithm = workload.algorithm
        self._federation = assemble(workload, self._observer.site_ready)
        self._samples = {client.name: client.data.samples() for client in self._federation.clients}
        if going_on:
            check_manifest(self.path, self._federation.manifest)
        self._learner = make_learner(self._setup)
        self._ledger = Ledger(self.path)
        self._best: tuple[int | None, float] = (None, -math.inf)
        self._backend = make_backend(workload.engine, address)
        self._hosts_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._backend.close()

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train until training.rounds, or until `stop` is true after a round; returns whether all rounds are done.

        Raises:
            InputError: the run directory cannot be written, or the run does not fit into this machine or cluster.
            RunError: a client failed, or processes kept being lost.
        """
        self._warn()
        begin_run(self.path, self.workload, self._federation.manifest)
        try:
            return self._replaying(lambda: self._rounds(stop))
        finally:
            self._ledger.flush()

    def evaluate(self, part: Part = "test", which: Which = "best", images: bool = False) -> pd.DataFrame:
        """Score every client's volumes of a part at a checkpoint, and keep the rows in evaluation.parquet."""
        round_ = Run(self.path).round(which)
        rows = self._replaying(lambda: self._evaluated(round_, part, images))
        frame = stamped(rows, self.workload, self._federation.manifest)
        if rows:
            self._keep_evaluation(frame, round_, part)
        return frame

    def _evaluated(self, round_: int, part: Part, images: bool) -> list[Row]:
        self._restore(round_)
        shared = self._backend.share(self._deployed())
        folder = (self.path / "images").absolute() if images else None
        names = self._federation.names
        parts = self._backend.call("evaluate", names, lambda mine: (round_, mine, shared, part, folder))
        place = {name: index for index, name in enumerate(names)}
        return sorted((row for rows in parts for row in rows), key=lambda row: place[row["client"]])

    def _replaying(self, task: Callable[[], T]) -> T:
        """Do a task that starts from a checkpoint; do it again if a process is lost, while that leads on."""
        losses, reached = 0, self._reached()
        while True:
            try:
                return task()
            except WorkerLostError as error:
                self._hosts_up = False
                losses, reached = (losses if self._reached() == reached else 0) + 1, self._reached()
                if self.workload.engine.on_failure == "abort" or losses > _REPLAYS:
                    raise RunError(f"a process was lost ({error}); go on with --resume") from error
                log.warning("a process was lost (%s); going back to the last checkpoint", error)

    def _reached(self) -> int:
        """The last round with a checkpoint; 0 before the first."""
        return max(checkpoint.complete_rounds(self.path), default=0)

    def _keep_evaluation(self, frame: pd.DataFrame, round_: int, part: Part) -> None:
        with suppress(InputError):
            old = Run(self.path).evaluation
            frame = pd.concat([old[(old["round"] != round_) | (old["split"] != part)], frame], ignore_index=True)
        write_table(self.path / "evaluation.parquet", frame)

    def _check_out(self, resume: bool) -> bool:
        """Whether `out` is a run to go on with."""
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise InputError(f"--out {self.path}: is a file; choose a folder")
        if not resume:
            raise InputError(f"--out {self.path}: exists; choose another folder, or go on with --resume")
        if not any(self.path.iterdir()):
            return False
        check_method(self.path, self.workload.algorithm)
        check_same(Run(self.path).workload.settled(), self.workload)
        return (self.path / "manifest.parquet").exists()

    def _warn(self) -> None:
        steps = {c.name: math.ceil(self._samples[c.name] / c.training.batch_size) for c in self._federation.clients}
        legal = self._algorithm.warnings(steps, self._learner.parameters)
        for warning in legal + check_fits(self.workload, self._federation, self._learner, self.path):
            log.warning(warning)

    # Rounds

    def _rounds(self, stop: Callable[[], bool]) -> bool:
        begun = self._reached()
        round_, last = self._restore(begun), self.workload.training.rounds
        while round_ < last and not stop():
            round_ += 1
            row, clients = self._round(round_)
            self._ledger.append(row, clients)
            if self._on_schedule(round_):
                if row["psnr"] > self._best[1]:
                    self._best = (round_, row["psnr"])
                self._checkpoint(round_)
            self._observer.round_ends(row)
        if round_ > begun and not self._on_schedule(round_):
            self._checkpoint(round_)
        return round_ >= last

    def _restore(self, round_: int) -> int:
        """Put server, ledger and hosts into the state after a round; 0 is the start."""
        if not (self._hosts_up and round_):
            self._backend.start(self._setup, self._federation.clients)
            self._hosts_up = True
        self._ledger.resume(round_)
        self._server: ServerState = self._learner.fresh_server()
        self._best = (None, -math.inf)
        if round_:
            state = checkpoint.read_state(self.path, round_)
            self._best = (state["best_round"], state["best_psnr"] if state["best_round"] else -math.inf)
            self._server = checkpoint.read_server(self.path, round_, self._learner.shared_layout)
            folder = checkpoint.folder(self.path, round_).absolute() / "clients"
            files = checkpoint.client_files(state["clients"])
            self._all("load", lambda mine: (folder, checkpoint.files_of(mine, files)))
        return round_

    def _round(self, round_: int) -> tuple[Row, pd.DataFrame]:
        """The round's row, and a row for each client."""
        begun = time.time()
        cohort = self._cohort(round_)
        self._observer.round_begins(round_, len(cohort))
        trained: dict[str, Row] = {}
        for phase in self._algorithm.phases(cohort, round_, self.workload.seed):
            before = time.time() - begun
            gathered = self._phase(round_, phase)
            received = gathered.received()
            self._server = {**self._algorithm.update(self._server, received), **self._buffers(received)}
            self._backend.learn(gathered.rows)
            for row in gathered.rows:
                row["begin_seconds"] = before + row["wait_seconds"]
                trained[row["client"]] = joined(trained.get(row["client"]), row)
        quality = self._validate(round_, begun)
        clients = pd.DataFrame([
            {**trained.get(client.name, idle_row(round_, client)), **UNKNOWN, **quality.get(client.name, {})}
            for client in self._federation.clients
        ])  # fmt: skip
        return round_row(round_, time.time() - begun, clients, len(cohort), self._backend.slots()), clients

    def _cohort(self, round_: int) -> tuple[str, ...]:
        """The clients drawn for a round, in the federation's order."""
        names = self._federation.names
        size = self.workload.training.cohort(len(names))
        drawn = numpy_stream(self.workload.seed, "cohort", round_).choice(len(names), size=size, replace=False)
        return tuple(names[index] for index in sorted(drawn))

    def _phase(self, round_: int, phase: Phase) -> Gathered:
        """Let the phase's clients work and fold in their replies as they come."""
        weights = self._weights(phase.clients)
        uploads = uploads_of(self._algorithm, phase.name, self._server)
        gathered = Gathered(phase, uploads, weights, len(self._federation.clients))
        broadcast = self._backend.share({**self._algorithm.broadcast(self._server, phase.name), **self._buffers()})
        since = time.time()

        def arguments(mine: tuple[str, ...]) -> tuple[Any, ...]:
            return round_, phase.name, {name: weights[name] for name in mine}, broadcast, since

        for reply in self._backend.call("train", phase.clients, arguments):
            gathered.add(reply)
            self._observer.clients_done(reply.rows)
        return gathered

    def _weights(self, clients: tuple[str, ...]) -> dict[str, float]:
        """Weights that sum to one."""
        by_samples = self._algorithm.weighting == "samples"
        total = sum(self._samples[name] for name in clients) if by_samples else len(clients)
        return {name: (self._samples[name] if by_samples else 1) / total for name in clients}

    def _validate(self, round_: int, begun: float) -> dict[str, Row]:
        """Every client's mean validation quality after aggregation, if this round is one to validate."""
        every = self.workload.metrics.every
        if not every or round_ % every:
            return {}
        shared = self._backend.share(self._deployed())
        parts = self._backend.call("validate", self._federation.names, lambda mine: (round_, mine, shared, begun))
        return {name: row for part in parts for name, row in part.items()}

    def _deployed(self) -> Mapping[str, Vector]:
        return {"shared": self._server["shared"], **self._buffers()}

    def _buffers(self, received: Received | None = None) -> Mapping[str, Vector]:
        """Running statistics of shared layers: the clients' mean if they sent any, else the server's; often none."""
        if received is not None and "buffers" in received.sums:
            return {"buffers": received.mean("buffers")}
        return {"buffers": self._server["buffers"]} if "buffers" in self._server else {}

    # Checkpoints

    def _on_schedule(self, round_: int) -> bool:
        every = self.workload.engine.checkpoint_every
        return bool(every) and round_ % every == 0

    def _checkpoint(self, round_: int) -> None:
        best, psnr = self._best
        state: dict[str, Any] = {
            "round": round_,
            "algorithm": self._algorithm.name,
            "clients": list(self._federation.names),
            "best_round": best,
            "best_psnr": psnr if best else None,
        }

        names = self._federation.names
        alike = self._backend.call("layouts", names, lambda mine: (mine,))
        layouts = {name: layout for part in alike for layout, members in part.items() for name in members}
        files = checkpoint.client_files(names)

        def save(folder: Path) -> None:
            self._all("save", lambda mine: (folder.absolute(), checkpoint.files_of(mine, files)))

        self._ledger.flush()
        clients = {name: layouts[name] for name in names}
        checkpoint.write(self.path, state, self._server, self._learner.shared_layout, clients, save)
        passing = [r for r in checkpoint.complete_rounds(self.path) if r != round_ and not self._on_schedule(r)]
        checkpoint.prune(self.path, self.workload.engine.keep_last, best, passing)

    def _all(self, method: str, arguments: Callable[[tuple[str, ...]], tuple[Any, ...]]) -> None:
        for _ in self._backend.call(method, self._federation.names, arguments):
            pass


def run(
    workload: Workload,
    out: str | Path,
    *,
    resume: bool = False,
    address: str | None = None,
    observer: Observer | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train a workload and evaluate its best round on the test split.

    Args:
        workload: From `load_workload`, or built in code.
        out: Run directory; must not exist unless `resume`.
        resume: Go on from the last checkpoint in `out`, if there is one.
        address: Ray cluster to use; None starts Ray on this machine for the run's time.
        observer: Is told what happens.
        stop: Asked after every round; when true the run ends there with a checkpoint.

    Raises:
        InputError: the workload or its data are wrong.
        RunError: the run failed.
    """
    with Simulation(workload, out, resume=resume, address=address, observer=observer) as simulation:
        if simulation.run(stop):
            simulation.evaluate()
    return Run(out)
