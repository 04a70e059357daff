"""The driver: runs the rounds and writes the run directory; `recovery.py` handles the death of a process."""

import json
import logging
import math
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from fedsim.algorithms import hooks
from fedsim.core.errors import DamagedError, InputError, RunError, WriteError
from fedsim.data.split import Part
from fedsim.engine.backends import make_backend
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.federation import assemble
from fedsim.engine.host.messages import Evaluate, Row
from fedsim.engine.host.training import make_learner
from fedsim.engine.observer import Observer, Observers
from fedsim.engine.plan.fits import check_fits
from fedsim.engine.plan.virtual import held_by
from fedsim.engine.plan.walltime import Walltime
from fedsim.engine.record.claim import Claim, claimed
from fedsim.engine.record.evaluation import keep_evaluation
from fedsim.engine.record.failures import Failures
from fedsim.engine.record.ledger import Ledger, stamped
from fedsim.engine.record.log import RunLog, round_text
from fedsim.engine.record.manifest import Manifest
from fedsim.engine.record.resuming import check_manifest, resumes
from fedsim.engine.record.run_directory import Run, Which, begin_run, setup_of
from fedsim.engine.record.term import TERM_COLUMNS, ratio_by_round, term_warning
from fedsim.engine.recovery import Recovery
from fedsim.engine.rounds import Rounds, check_phases
from fedsim.engine.server import Server
from fedsim.engine.state import checkpoint
from fedsim.engine.state.due import is_due, level_after
from fedsim.engine.state.snapshots import Snapshots
from fedsim.engine.tracking.tracking import tracked
from fedsim.workload.faults import CHECKPOINT
from fedsim.workload.names import check_client
from fedsim.workload.schema import Workload

log = logging.getLogger("fedsim")


class Simulation:
    """A workload's federation, its hosts and its run directory. Use as a context manager."""

    def __init__(
        self,
        workload: Workload,
        out: str | Path | Claim,
        *,
        resume: bool = False,
        address: str | None = None,
        observer: Observer | None = None,
        writes: bool = True,
    ) -> None:
        """Prepare a run: claim its directory, import the data, bring up the backend; writes nothing else yet.

        Args:
            workload: What to run.
            out: Run directory, or a claim of it, which is released at the end.
            resume: Whether the run may exist already.
            address: Ray cluster to use; None starts Ray on this machine.
            observer: Told what happens.
            writes: Whether to write anything; if not, another process may be writing there.

        Raises:
            InputError: the workload or its data are wrong, `out` exists and `resume` is False, or another process
                writes there.
        """
        self.workload = workload = workload.settled()
        self.path, self._observer = out.folder if isinstance(out, Claim) else Path(out), observer or Observer()
        self._stamped, self._walltime = workload, Walltime()
        self._best: tuple[int | None, float] = (None, -math.inf)
        setup = setup_of(workload)
        with ExitStack() as closing:
            self._claim = closing.enter_context(claimed(out, resume)) if writes else None
            self._log = closing.enter_context(RunLog())
            resumed = resumes(self.path, workload)
            self._federation = assemble(workload, self._observer.site_ready)
            if resumed:
                check_manifest(self.path, self._federation)
            self._manifest, self._failures = Manifest(self.path, self._federation), Failures(self.path)
            self._ledger = Ledger(self.path, before=self._manifest.flush)
            self._learner, self.validated = make_learner(setup), self._ledger.quality
            check_phases(workload, self._federation.clients)
            self._backend = make_backend(workload.engine, address)
            closing.callback(self._backend.close)
            self._observer = Observers(self._observer, self._backend.observer())
            self._server = Server(workload.algorithm, self._learner.fresh_server())
            hosted = self._federation, self._server, self._backend
            self._timetable = Timetable.of(workload, self._federation.clients, self._learner)
            self._rounds = Rounds(workload, *hosted, self._observer, self._failures, self._timetable)
            held = held_by(setup, workload, self._federation.clients, self._learner, self._timetable)
            self._snapshots = Snapshots(self.path, held, self._learner, *hosted)
            self._recovery = Recovery(workload.engine, self._rounds, self._failures, self._snapshots.reached)
            self._closing = closing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._log.fail(error)
        self._closing.close()

    def run(
        self,
        stop: Callable[[], bool] = lambda: False,
        between: Callable[[Row], None] = lambda _: None,
        walltime: Walltime | None = None,
    ) -> bool:
        """Train until training.rounds, an early stop, until `stop` is true after a round, or the walltime is used up.

        Rounds wait for `between`. Returns whether nothing is left to train: all are done, or none improves any longer.

        Raises:
            InputError: the run directory cannot be written, or the run does not fit into this machine or cluster.
            RunError: a client failed, processes kept being lost, the disk is full, or no client finishes any more.
        """
        if self.workload.engine.backend == "serial" and any(fault.kind == "kill" for fault in self.workload.faults):
            raise InputError("faults: kill needs engine.backend=ray; a serial run has no worker process to kill")
        self._warn()
        self._walltime = walltime or Walltime()
        self._stamped = begin_run(self.path, self.workload, self._manifest.begin)
        self._log.open(self.path)
        checkpoint.sweep(self.path)
        try:
            done = self._recovery.attempt(lambda: self._train(stop, between))
        except BaseException:
            with suppress(WriteError, DamagedError):  # report the first error
                self._ledger.close()
            raise
        self._ledger.close()
        self._manifest.close()
        if done and (warning := term_warning(ratio_by_round(self._ledger.clients(TERM_COLUMNS)))):
            log.warning(warning)
        self._log.say("trained" if done else f"stopped after round {self._snapshots.reached()}{self._walltime.why}")
        return done

    def evaluate(self, part: Part = "test", which: Which = "best", images: bool = False) -> pd.DataFrame:
        """Score clients' volumes of a part at a checkpoint, and keep the rows in evaluation.parquet.

        Whose: `metrics.clients` says; the cohort is that of the checkpoint's round.
        """
        round_ = Run(self.path).round(which)
        try:
            rows = self._recovery.attempt(lambda: self._evaluated(round_, part, images))
        except DamagedError as error:
            last = self._snapshots.reached()
            if which != "best" or last == round_:
                raise
            log.warning("%s; the last round, %d, is evaluated instead of the best round", error, last)
            return self.evaluate(part, last, images)
        frame = stamped(rows, self.workload, self._federation)
        if rows:
            keep_evaluation(self.path, frame, round_, part)
            self._log.open(self.path)
            self._log.say(f"round {round_}, {part}: PSNR {frame['psnr'].mean():.2f} dB, mean over {len(frame)} volumes")
        return frame

    def debug(self, client: str, round_: int) -> Row:
        """Repeat one client's part of a round, from the checkpoint before it; returns its row. Nothing is written.

        Raises:
            InputError: there is no such checkpoint, or the client was not drawn for the round.
            ClientError: it failed.
        """
        self._snapshots.check_before(round_)
        check_client(client, self._federation.names)
        self._put(round_ - 1)
        return self._rounds.play_alone(client, round_)

    def _evaluated(self, round_: int, part: Part, images: bool) -> list[Row]:
        self._put(round_)
        folder = (self.path / "images").absolute() if images else None
        names = self._rounds.scored(round_)
        vectors, lots = self._rounds.deployed(names, round_)
        order = Evaluate(clients=names, round=round_, lots=lots, part=part, images=folder)
        rows = [row for reply in self._backend.call(order, vectors) for row in reply.rows]
        return sorted(rows, key=lambda row: self._federation.clients.place(row["client"]))

    def _warn(self) -> None:
        clients = self._federation.clients.typical
        steps = {client.name: math.ceil(client.data.samples() / client.training.batch_size) for client in clients}
        fits = check_fits(self.workload, self._federation, self._learner, self._timetable, self.path)
        for warning in hooks.warnings(self.workload.algorithm, steps, self._learner.parameters) + fits:
            log.warning(warning)
        for note in self._federation.notes:
            log.info(note)

    def _train(self, stop: Callable[[], bool], between: Callable[[Row], None]) -> bool:
        begun = round_ = self._recover()
        self._log.say(f"resumes after round {begun}" if begun else "begins")
        self._walltime.begin(self.workload.metrics.every, self._ledger.seconds())
        last, stopping = self.workload.training.rounds, False
        over: RunError | None = None
        while round_ < last and not self._stops_early():
            stopping = stopping or stop()
            if self._rounds.level and (stopping or not self._walltime.lasts() or (over := self._rounds.over(round_))):
                break
            round_ += 1
            row, clients = self._rounds.play(round_, round_ if stopping else level_after(self.workload, round_))
            self._manifest.add(each["site"] for each in clients)
            self._ledger.append(row, clients)
            self._snapshots.trained(each["client"] for each in clients if each["outcome"] in ("trained", "dropped"))
            if is_due(self.workload, round_):
                if row["psnr"] > self._best[1]:
                    self._best = (round_, row["psnr"])
                self._checkpoint(round_)
            self._log.say(round_text(row, last))
            self._observer.round_ends(row)
            between(row)
        if round_ > begun and not is_due(self.workload, round_):
            self._checkpoint(round_)
        if over:
            raise over
        if reason := self._stops_early():
            log.info(reason)
        return round_ >= last or bool(reason)

    def _stops_early(self) -> str:
        """Why no further round is needed; empty while one is."""
        rule = self.workload.training.early_stopping
        return rule.verdict(self._ledger.quality(rule.metric)) if rule else ""

    def _recover(self) -> int:
        """Restore the last complete checkpoint; returns its round, 0 for the start."""
        while True:
            round_ = self._snapshots.reached()
            try:
                best, psnr = self._put(round_)
            except DamagedError as error:
                log.warning("%s: round %d is set aside, and the checkpoint before it used", error, round_)
                checkpoint.set_aside(self.path, round_)
                continue
            self._ledger.resume(round_)
            self._best = (best, -math.inf if psnr is None else psnr)
            return round_

    def _put(self, round_: int) -> tuple[int | None, float | None]:
        """Restore hosts and server to the state after a round, and the best round so far and its PSNR."""
        self._rounds.restart(round_)
        return self._snapshots.put(round_)

    def _checkpoint(self, round_: int) -> None:
        if self._claim is not None:
            self._claim.check()
        best, psnr = self._best
        state: dict[str, Any] = {
            "round": round_, "clients": self._snapshots.clients(), "best_round": best, "best_psnr": best and psnr,
            "workload": json.loads(self._stamped.model_dump_json(exclude_none=True)),
            **({"stopped_early": reason} if (reason := self._stops_early()) else {}),
        }  # fmt: skip
        self._rounds.saving(round_)
        layouts = self._snapshots.layouts(round_)
        struck = self._failures.strike(self.workload, tuple(layouts), round_, CHECKPOINT)
        self._ledger.flush()
        with self._walltime.writing():
            self._snapshots.write(state, layouts, struck)
        passing = [r for r in checkpoint.complete_rounds(self.path) if r != round_ and not is_due(self.workload, r)]
        checkpoint.prune(self.path, self.workload.engine.keep_last, best, passing)


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
        out: Run directory; must not exist unless `resume`, and no other process may be writing there.
        resume: Resume from the last checkpoint in `out`, if there is one.
        address: Ray cluster to use; None starts Ray on this machine for the run's time.
        observer: Told what happens.
        stop: Asked after every round; when true the run ends there with a checkpoint.

    Raises:
        InputError: the workload or its data are wrong.
        RunError: the run failed.
    """
    with (
        tracked(workload.trackers, Path(out), observer) as told,
        Simulation(workload, out, resume=resume, address=address, observer=told) as simulation,
    ):
        if simulation.run(stop):
            simulation.evaluate()
    return Run(out)
