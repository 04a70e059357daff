"""Calls in which clients train: what they are sent, what is added up, and what becomes of those that fail."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedsim.algorithms.base import Phase, Upload, Vector
from fedsim.core.errors import ClientError, DivergedError
from fedsim.engine.backend import Backend
from fedsim.engine.federation import Federation
from fedsim.engine.gather import Gathered, by_sum
from fedsim.engine.host.messages import Faults, Lot, Reply, Train
from fedsim.engine.observer import Observer
from fedsim.engine.record.failures import Action, Failure, Failures, Kind
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.workload.faults import by_client, due
from fedsim.workload.schema import Workload


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Clients that are asked to do a phase of a round."""

    round: int
    """Counted from 1."""
    gathered: Gathered
    """Where what they send is added up."""
    clients: tuple[str, ...]
    """Names, in the federation's order."""
    lots: Mapping[str, Lot] = field(default_factory=dict)
    """By client; empty where all that are asked in a call read the same and enter the same sum."""


class Exchange:
    """The hosts as the server sees them. Clients that fail are left out of a round if the run allows it."""

    def __init__(
        self,
        workload: Workload,
        federation: Federation,
        backend: Backend,
        observer: Observer,
        failures: Failures,
    ) -> None:
        """No client is at work."""
        self.now: tuple[int, str] = (0, "")
        """The present round and phase; an empty phase between rounds."""
        self._workload, self._clients = workload, federation.clients
        self._backend, self._observer, self._failures = backend, observer, failures
        self._at_work: dict[str, tuple[int, str]] = {}

    def restart(self, round_: int) -> None:
        """Stand after a round; whatever was in progress is void."""
        self.now, self._at_work = (round_, ""), {}

    def at(self, client: str) -> tuple[int, str]:
        """The round and phase that a client is at work for; of one that is not, the present ones."""
        return self._at_work.get(client, self.now)

    def gathering(self, phase: Phase, uploads: Sequence[Upload]) -> Gathered:
        """Sums of a phase to which nothing has been added yet."""
        return Gathered(phase, uploads, self._weights(phase.clients), len(self._clients))

    def leaving(self, round_: int, phase: str) -> set[str]:
        """The clients that take no part from this phase on, since they were dropped earlier."""
        return {client for client, at in self._failures.dropped(round_).items() if at == phase}

    def recurring(self, round_: int, phase: Phase) -> Faults:
        """The faults that strike whenever the phase is run; those that strike once are left out."""
        struck = due(self._workload.faults, self._workload.seed, phase.clients, round_, phase.name)
        return by_client(one for one in struck if not one.fault.once)

    def train(self, asked: Sequence[Asked], broadcast: Mapping[str, Vector]) -> None:
        """Let clients do a phase.

        Args:
            asked: Clients of one round, or of several; no client twice.
            broadcast: What the server sends, under the prefixes of the lots.

        Raises:
            WorkerLostError: a process was lost; the round does not count.
            ClientError: a client failed, and the run may not continue without it.
        """
        faults: Faults = {}
        for one in asked:
            struck = self._failures.strike(self._workload, one.clients, one.round, one.gathered.phase.name)
            faults = {**faults, **struck}
        self.gather(asked, broadcast, faults)
        for one in asked:
            self._note(one)
        asked_now = {name for one in asked for name in one.clients}
        self._backend.learn(row for one in asked for row in one.gathered.rows if row["client"] in asked_now)

    def gather(self, asked: Sequence[Asked], broadcast: Mapping[str, Vector], faults: Faults) -> None:
        """Call the hosts and add up their replies as they arrive; `begin_seconds` of a row are those since 1970."""
        phase = asked[0].gathered.phase.name
        weights = {name: one.gathered.weights[name] for one in asked for name in one.clients}
        lots = {name: lot for one in asked for name, lot in one.lots.items()}
        self._at_work = {name: (one.round, phase) for one in asked for name in one.clients}
        sums = {lot.enters: one.gathered for one in asked for lot in one.lots.values()}
        order = Train(
            clients=tuple(weights), round=asked[0].round, phase=phase, since=time.time(), weights=weights,
            faults=faults, lots=lots,
        )  # fmt: skip
        for reply in self._backend.call(order, broadcast):
            for row in reply.rows:
                row["begin_seconds"] = order.since + row["wait_seconds"]
            for enters, part in self._parts(reply, lots).items():
                sums.get(enters, asked[0].gathered).add(part)
            if reply.rows:
                self._observer.clients_done(reply.rows)
            if reply.failed and self._workload.engine.on_client_error == "abort":
                break
        self._at_work = {}

    @staticmethod
    def _parts(reply: Reply, lots: Mapping[str, Lot]) -> Mapping[str, Reply]:
        return by_sum(reply, lots) if lots else {"": reply}

    def _note(self, asked: Asked) -> None:
        """Record the clients that have failed.

        Raises:
            ClientError: the run may not continue without them.
        """
        phase, failed = asked.gathered.phase.name, asked.gathered.failed
        mine = {client: failed[client] for client in asked.clients if client in failed}
        action: Action = "aborted" if self._workload.engine.on_client_error == "abort" else "dropped"
        self._failures.note([
            Failure(round=asked.round, phase=phase, client=client, kind=_kind(error), action=action,
                    message=str(error), trace=error.trace)
            for client, error in mine.items()
        ])  # fmt: skip
        if action == "aborted":
            for client, error in mine.items():
                raise self._explained(error, client, asked.round)

    def _explained(self, error: ClientError, client: str, round_: int) -> ClientError:
        """An error that ends the run, with the command that reproduces it."""
        if isinstance(error, DivergedError):
            return error
        if round_ - 1 not in (0, *complete_rounds(self._failures.run)):
            return error
        again = shlex.join(["fedsim", "debug", str(self._failures.run), "--client", client, "--round", str(round_)])
        return ClientError(f"{error}; to reproduce it: {again}", error.trace)

    def _weights(self, clients: tuple[str, ...]) -> dict[str, float]:
        """Aggregation weights of clients, which sum to one."""
        if self._workload.algorithm.weighting == "uniform":
            return dict.fromkeys(clients, 1 / len(clients))
        samples = {name: self._clients.named(name).data.samples() for name in clients}
        total = sum(samples.values())
        return {name: count / total for name, count in samples.items()}


def _kind(error: ClientError) -> Kind:
    return "diverged" if isinstance(error, DivergedError) else "raised"
