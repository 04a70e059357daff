"""A round: the cohort, the exchange of each phase, the server's update, and validation."""

import shlex
import time
from collections.abc import Sequence

import pandas as pd

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Phase
from fedsim.core.errors import ClientError, DivergedError, InputError, RunError
from fedsim.engine.backend import Backend
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.federation import Federation
from fedsim.engine.gather import Gathered
from fedsim.engine.host.merging import Levels, together
from fedsim.engine.host.messages import Faults, Row, Train, Validate
from fedsim.engine.observer import Observer
from fedsim.engine.record.failures import Action, Failure, Failures, Kind
from fedsim.engine.record.idle import idle_row
from fedsim.engine.record.ledger import UNKNOWN, joined, round_row, sum_columns
from fedsim.engine.server import Server
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.workload.faults import CHECKPOINT, by_client, due
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
    ) -> None:
        """Start before the first round."""
        self.server = server
        self.now: tuple[int, str] = (0, "")
        """The present round and phase; an empty phase between rounds."""
        self._workload, self._algorithm = workload, workload.algorithm
        self._federation, self._backend = federation, backend
        self._observer, self._failures = observer, failures

    def play(self, round_: int) -> tuple[Row, pd.DataFrame]:
        """Train and validate; the round's row, and a row for each client that was drawn or validated.

        Raises:
            WorkerLostError: a process was lost; the round does not count.
            ClientError: a client failed, and the run may not continue without it.
            RunError: all clients failed.
        """
        begun = time.time()
        cohort = self._cohort(round_)
        self._observer.round_begins(round_, len(cohort))
        gone = set[str]()
        trained: dict[str, Row] = {}
        levels: Levels = {}
        for phase in self._phases(cohort, round_):
            before = time.time() - begun
            gathered = self._phase(round_, phase, gone)
            self._take_up(gathered)
            self._backend.learn(gathered.rows)
            levels = together(levels, gathered.levels)
            for row in gathered.rows:
                row["begin_seconds"] = before + row["wait_seconds"]
                trained[row["client"]] = joined(trained.get(row["client"]), row)
        if gone.issuperset(cohort):
            first = next(f for f in self._failures.noted if f.round == round_ and f.action == "dropped")
            raise RunError(f"round {round_}: every client has failed; {first.client} first: {first.message}")
        self.now = (round_, "validate")
        quality = self._validate(round_, begun)
        self.now = (round_, "")
        rows = pd.DataFrame([
            {
                **(trained.get(name) or self._idle_row(round_, name)), **UNKNOWN,
                **({"outcome": "dropped", "weight": 0.0} if name in gone else {}), **quality.get(name, {}),
            }
            for name in sorted({*cohort, *quality}, key=self._federation.clients.place)
        ])  # fmt: skip
        slots, threads = self._backend.slots(), self._workload.engine.threads
        row = round_row(round_, time.time() - begun, rows, slots, threads)
        return {**row, **sum_columns(levels)}, rows

    def _idle_row(self, round_: int, name: str) -> Row:
        client = self._federation.clients.named(name)
        return idle_row(round_, name, client.site, client.data.samples())

    def play_alone(self, client: str, round_: int) -> Row:
        """Repeat one client's last phase of a round, after all that precedes it in the round; nothing is recorded.

        Raises:
            InputError: the client was not drawn for the round.
            ClientError: it failed.
        """
        cohort = self._cohort(round_)
        phases = self._phases(cohort, round_)
        own = [index for index, phase in enumerate(phases) if client in phase.clients]
        if not own:
            raise InputError(f"--client {client}: does not train in round {round_}; {_some(cohort)} do")
        gone = set[str]()
        for index, phase in enumerate(phases[: own[-1] + 1]):
            gone |= self._leaving(round_, phase) - {client}
            absent = gone if index < own[-1] else {*phase.clients} - {client}
            gathered = self._gather(round_, phase, absent, self._recurring(round_, phase))
            if client in gathered.failed:
                raise gathered.failed[client]
            gone.update(gathered.failed)
            if index < own[-1]:
                self._take_up(gathered)
        (row,) = gathered.rows
        return row

    def _recurring(self, round_: int, phase: Phase) -> Faults:
        """The faults that strike whenever the phase is run; those that strike once are left out."""
        struck = due(self._workload.faults, self._workload.seed, phase.clients, round_, phase.name)
        return by_client(one for one in struck if not one.fault.once)

    def _leaving(self, round_: int, phase: Phase) -> set[str]:
        """The clients that take no part from this phase on, since they were dropped earlier."""
        return {client for client, at in self._failures.dropped(round_).items() if at == phase.name}

    def spares(self, client: str) -> bool:
        """Whether the present round still has clients if one is dropped from it."""
        round_, _ = self.now
        return bool(set(self._cohort(round_)) - self._failures.dropped(round_).keys() - {client})

    def _phases(self, cohort: tuple[str, ...], round_: int) -> list[Phase]:
        return hooks.phases(self._algorithm, cohort, round_, self._workload.seed)

    def _cohort(self, round_: int) -> tuple[str, ...]:
        """The clients drawn for a round, in the federation's order."""
        return tuple(self._federation.names[place] for place in self._drawn(round_))

    def _drawn(self, round_: int) -> list[int]:
        """The places of the cohort."""
        return _drawn(self._workload, self._federation.clients, round_)

    def scored(self, round_: int) -> tuple[str, ...]:
        """The clients whose images are scored after a round, in the federation's order."""
        metrics, clients = self._workload.metrics, self._federation.clients
        places = metrics.scored(len(clients), self._drawn(round_), self._workload.seed)
        return tuple(clients.names[place] for place in places)

    def _phase(self, round_: int, phase: Phase, gone: set[str]) -> Gathered:
        """Run a phase without the clients that are gone; those dropped in it are added to `gone`."""
        self.now = (round_, phase.name)
        gone |= self._leaving(round_, phase)
        asked = [client for client in phase.clients if client not in gone]
        gathered = self._gather(round_, phase, gone, self._failures.strike(self._workload, asked, round_, phase.name))
        failed = {client: gathered.failed[client] for client in phase.clients if client in gathered.failed}
        action: Action = "aborted" if self._workload.engine.on_client_error == "abort" else "dropped"
        self._failures.note([
            Failure(round=round_, phase=phase.name, client=client, kind=_kind(error), action=action, message=str(error),
 trace=error.trace)
            for client, error in failed.items()
        ])  # fmt: skip
        if action == "aborted":
            for client, error in failed.items():
                raise self._explained(error, client, round_)
        gone.update(failed)
        return gathered

    def _gather(self, round_: int, phase: Phase, gone: set[str], faults: Faults) -> Gathered:
        """Let the phase's clients work and add their replies as they arrive."""
        weights = self._weights(phase.clients)
        uploads = self.server.uploads(phase.name, f"round {round_}")
        gathered = Gathered(phase, uploads, weights, len(self._federation.clients))
        broadcast = self.server.broadcast(phase.name, f"round {round_}")
        asked = tuple(client for client in phase.clients if client not in gone)
        order = Train(clients=asked, round=round_, phase=phase.name, since=time.time(), weights=weights, faults=faults)
        for reply in self._backend.call(order, broadcast):
            gathered.add(reply)
            if reply.rows:
                self._observer.clients_done(reply.rows)
            if gathered.failed and self._workload.engine.on_client_error == "abort":
                break
        return gathered

    def _explained(self, error: ClientError, client: str, round_: int) -> ClientError:
        """An error that ends the run, with the command that reproduces it."""
        if isinstance(error, DivergedError):
            return error
        if round_ - 1 not in (0, *complete_rounds(self._failures.run)):
            return error
        again = shlex.join(["fedsim", "debug", str(self._failures.run), "--client", client, "--round", str(round_)])
        return ClientError(f"{error}; to reproduce it: {again}", error.trace)

    def _take_up(self, gathered: Gathered) -> None:
        """Let the method update the server, and normalise the weights in the ledger to sum to one."""
        received = gathered.received()
        if len(received.phase.clients) < gathered.drawn:
            for row in gathered.rows:
                row["weight"] /= received.weight
        self.server.take_up(received, f"round {self.now[0]}")

    def _weights(self, clients: tuple[str, ...]) -> dict[str, float]:
        """Aggregation weights of clients, which sum to one."""
        if self._algorithm.weighting == "uniform":
            return dict.fromkeys(clients, 1 / len(clients))
        samples = {name: self._federation.clients.named(name).data.samples() for name in clients}
        total = sum(samples.values())
        return {name: count / total for name, count in samples.items()}

    def _validate(self, round_: int, begun: float) -> dict[str, Row]:
        """Mean validation quality of the clients that are scored, if this round is one to validate."""
        every = self._workload.metrics.every
        if not every or round_ % every:
            return {}
        order = Validate(clients=self.scored(round_), round=round_, since=begun)
        replies = self._backend.call(order, self.server.deployed())
        return {row["client"]: row for reply in replies for row in reply.rows}


def check_phases(workload: Workload, clients: Clients) -> None:
    """Refuse a cohort that is none, phases that have the same name, and faults of unknown clients or phases.

    Args:
        workload: With the faults.
        clients: The federation's.

    Raises:
        InputError: naming the sampler, the method or the fault.
    """
    names = clients.names
    cohort = tuple(names[place] for place in _drawn(workload, clients, 1))
    turns = [(name, p.name) for p in hooks.phases(workload.algorithm, cohort, 1, workload.seed) for name in p.clients]
    if len(set(turns)) < len(turns):
        raise InputError("algorithm.name: phases of a round in which a client takes part must have different names")
    phases = {"train", CHECKPOINT, *(phase for _, phase in turns)}
    for index, fault in enumerate(workload.faults):
        if fault.client is not None and fault.client not in names:
            raise InputError(f"faults.{index}.client: {fault.client!r} is not a client; {_some(names)} are")
        if fault.at not in phases:
            raise InputError(f"faults.{index}.phase: must be one of {', '.join(sorted(phases))}, not {fault.at!r}")


def _drawn(workload: Workload, clients: Clients, round_: int) -> list[int]:
    training = workload.training
    return training.sampler.drawn(clients, training.drawn(len(clients)), round_, workload.seed)


def _kind(error: ClientError) -> Kind:
    return "diverged" if isinstance(error, DivergedError) else "raised"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
