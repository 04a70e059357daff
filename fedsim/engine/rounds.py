"""A round: the clients that its step trains, the server's update, and validation."""

import math
import time
from collections.abc import Mapping, Sequence

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Vector
from fedsim.core.errors import InputError, RunError, refusing
from fedsim.engine.backend import Backend
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.clock.turns import Step, Turn
from fedsim.engine.federation import Federation
from fedsim.engine.host.messages import Lot, Row, Validate
from fedsim.engine.observer import Observer
from fedsim.engine.record.failures import Failures
from fedsim.engine.record.idle import idle_row
from fedsim.engine.record.ledger import UNKNOWN, round_row, sum_columns
from fedsim.engine.server import Server
from fedsim.engine.steps.aggregation import Aggregation, Done, Together, some
from fedsim.engine.steps.exchange import Exchange
from fedsim.engine.steps.overlapping import Overlapping
from fedsim.engine.steps.regional import Regional
from fedsim.engine.steps.steps import cohort, drawn, steps_of
from fedsim.workload.faults import CHECKPOINT
from fedsim.workload.schema import Workload


class Rounds:
    """The server's side of all rounds. Clients that fail are dropped from the rest of a round if the run allows it."""

    def __init__(
        self,
        workload: Workload,
        federation: Federation,
        server: Server,
        backend: Backend,
        observer: Observer,
        failures: Failures,
        timetable: Timetable | None = None,
    ) -> None:
        """Start before the first round; a workload with simulated time has a timetable."""
        self._workload, self._clients, self._backend = workload, federation.clients, backend
        self._observer, self._failures = observer, failures
        self._step_of = steps_of(workload, federation.clients, timetable)
        self._exchange = Exchange(workload, federation, backend, observer, failures)
        self._aggregation = self._made(server)

    def _made(self, server: Server) -> Aggregation:
        timing, parts = self._workload.time, (self._workload, self._clients, server, self._exchange)
        if timing is not None and timing.overlaps:
            return Overlapping(*parts, time=timing, step_of=self._step_of)
        if timing is not None and timing.hierarchy is not None and timing.hierarchy.regions > 1:
            return Regional(*parts, hierarchy=timing.hierarchy)
        return Together(*parts)

    def restart(self, round_: int) -> None:
        """Stand after a round, to which hosts and server are being restored; whatever was in progress is void."""
        self._exchange.restart(round_)
        self._aggregation.restart()

    def saving(self, round_: int) -> None:
        """Note that a round is over, and that its checkpoint is being written."""
        self._exchange.now = (round_, CHECKPOINT)

    @property
    def level(self) -> bool:
        """Whether no client has been trained for a round that is to come."""
        return self._aggregation.level

    def over(self, round_: int) -> RunError | None:
        """Why no round can follow a round, since no client finishes a turn any more; None if one can.

        Then no client has been trained for one either, so that a checkpoint can be written.
        """
        try:
            self._step_of(round_ + 1)
        except RunError as error:
            return error
        return None

    def play(self, round_: int, until: int = 0) -> tuple[Row, list[Row]]:
        """Train and validate; the round's row, and a row for each client that was drawn or validated.

        Args:
            round_: The next one, counted from 1.
            until: The last round whose clients may be trained, too, where rounds overlap.

        Raises:
            WorkerLostError: a process was lost; the round does not count.
            ClientError: a client failed, and the run may not continue without it.
            RunError: all clients failed.
        """
        begun, step = time.time(), self._step_of(round_)
        self._observer.round_begins(round_, len(cohort(step, self._clients)))
        done = self._aggregation.play(step, max(until, round_))
        self._check_left(step, done)
        self._exchange.now = (round_, "validate")
        quality = self._validate(round_, begun)
        self._exchange.now = (round_, "")
        for trained in done.rows.values():
            trained["begin_seconds"] -= begun
        rows = self._rows(step, done, quality)
        slots, threads = self._backend.slots(), self._workload.engine.threads
        row = round_row(round_, time.time() - begun, rows, slots, threads)
        virtual = {"failed": len(done.gone), "virtual_s": step.end_s} if self._workload.time else {}
        return {**row, **sum_columns(done.levels), **virtual, **done.columns}, rows

    def _check_left(self, step: Step, done: Done) -> None:
        """Refuse a round that every client has left by failing; where one alone makes a round, others are at work.

        Raises:
            RunError: naming the first.
        """
        timing = self._workload.time
        goes_on = timing is not None and timing.overlaps and timing.uploads == 1
        if not goes_on and done.gone.issuperset(cohort(step, self._clients)):
            first = next(f for f in self._failures.noted if f.round == step.round and f.action == "dropped")
            raise RunError(f"round {step.round}: every client has failed; {first.client} first: {first.message}")

    def _rows(self, step: Step, done: Done, quality: Mapping[str, Row]) -> list[Row]:
        """A row for each client that took part or was validated."""
        turns = {turn.client: turn for turn in step.turns}
        return [
            {
                **(done.rows.get(name) or self._idle_row(step.round, name, done.given.get(name, 0))), **UNKNOWN,
                **self._timed(turns.get(name)), **self._aggregation.labels(name),
                **({"outcome": "dropped", "weight": 0.0} if name in done.gone else {}), **quality.get(name, {}),
            }
            for name in sorted({*turns, *quality}, key=self._clients.place)
        ]  # fmt: skip

    def _timed(self, turn: Turn | None) -> Row:
        """The columns of simulated time, if the workload has it."""
        if self._workload.time is None:
            return {}
        if turn is None:
            return {"virtual_begin_s": math.nan, "virtual_end_s": math.nan, "staleness": math.nan}
        times = {"virtual_begin_s": turn.begin_s, "virtual_end_s": turn.end_s, "staleness": float(turn.staleness)}
        return times if turn.outcome == "trained" else {**times, "outcome": turn.outcome}

    def _idle_row(self, round_: int, name: str, received: int) -> Row:
        """The row of a client that has not trained, but may have received what the server sends [bytes]."""
        client = self._clients.named(name)
        return {**idle_row(round_, name, client.site, client.data.samples()), "downlink_bytes": received}

    def play_alone(self, client: str, round_: int) -> Row:
        """Repeat one client's last phase of a round, after all that precedes it in the round; nothing is recorded.

        Raises:
            InputError: the client does not train in the round.
            ClientError: it failed.
        """
        return self._aggregation.alone(self._step_of(round_), client)

    def at(self, client: str) -> tuple[int, str]:
        """The round and phase that a client is at work for; of one that is not, the present ones."""
        return self._exchange.at(client)

    def spares(self, client: str) -> bool:
        """Whether the round that a client is at work for still has clients without it."""
        round_, _ = self.at(client)
        others = {*cohort(self._step_of(round_), self._clients)} - {client}
        return bool(others - self._failures.dropped(round_).keys())

    def deployed(self, clients: Sequence[str], round_: int) -> tuple[Mapping[str, Vector], Mapping[str, Lot]]:
        """What clients need to reconstruct after a round, and what of it each reads."""
        return self._aggregation.deployed(clients, round_)

    def scored(self, round_: int) -> tuple[str, ...]:
        """The clients whose images are scored after a round, in the federation's order."""
        metrics, clients = self._workload.metrics, self._clients
        places = sorted(clients.place(turn.client) for turn in self._step_of(round_).turns)
        return tuple(clients.names[at] for at in metrics.scored(len(clients), places, self._workload.seed))

    def _validate(self, round_: int, begun: float) -> dict[str, Row]:
        """Mean validation quality of the clients that are scored, if this round is one to validate."""
        every = self._workload.metrics.every
        if not every or round_ % every:
            return {}
        names = self.scored(round_)
        vectors, lots = self.deployed(names, round_)
        order = Validate(clients=names, round=round_, lots=lots, since=begun)
        return {row["client"]: row for reply in self._backend.call(order, vectors) for row in reply.rows}


@refusing()
def check_phases(workload: Workload, clients: Clients) -> None:
    """Refuse a cohort that is none, phases that are in each other's way, and faults of unknown clients or phases.

    Args:
        workload: With the faults.
        clients: The federation's.

    Raises:
        RefusedError: naming the sampler, the method or the fault.
    """
    names = clients.names
    some_clients = tuple(names[place] for place in drawn(workload, clients, 1))
    found = hooks.phases(workload.algorithm, some_clients, 1, workload.seed)
    turns = [(name, phase.name) for phase in found for name in phase.clients]
    if len(set(turns)) < len(turns):
        raise InputError("algorithm.name: phases of a round in which a client takes part must have different names")
    if workload.time is not None and workload.time.apart and [phase.clients for phase in found] != [some_clients]:
        what = f"{workload.algorithm.name} has several phases a round, or some for a part of the clients"
        raise InputError(f"time: {what}; set time.mode to synchronous or deadline, without time.hierarchy")
    phases = {"train", CHECKPOINT, *(phase for _, phase in turns)}
    for index, fault in enumerate(workload.faults):
        if fault.client is not None and fault.client not in names:
            raise InputError(f"faults.{index}.client: {fault.client!r} is not a client; {some(names)} are")
        if fault.at not in phases:
            raise InputError(f"faults.{index}.phase: must be one of {', '.join(sorted(phases))}, not {fault.at!r}")
