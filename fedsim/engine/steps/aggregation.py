"""How the server aggregates what the clients of a round send."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Phase, ServerState, Vector
from fedsim.core.errors import InputError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.turns import Step, Turn
from fedsim.engine.gather import Gathered
from fedsim.engine.host.merging import Levels, together
from fedsim.engine.host.messages import Lot, Row
from fedsim.engine.record.ledger import joined
from fedsim.engine.server import Server
from fedsim.engine.steps.exchange import Asked, Exchange
from fedsim.engine.steps.steps import cohort
from fedsim.workload.schema import Workload


@dataclass(kw_only=True)
class Done:
    """What the training of a round has given."""

    rows: dict[str, Row] = field(default_factory=dict)
    """The ledger's, by client; `begin_seconds` are those since 1970."""
    gone: set[str] = field(default_factory=set)
    """Clients that failed, or had been dropped from the round before."""
    levels: Levels = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    """What clients received who sent nothing [bytes]."""
    columns: Row = field(default_factory=dict)
    """Of the round's row."""

    def add(self, gathered: Gathered) -> None:
        """Add what a phase has given."""
        self.levels = together(self.levels, gathered.levels)
        self.gone.update(gathered.failed)
        for row in gathered.rows:
            self.rows[row["client"]] = joined(self.rows.get(row["client"]), row)


class Aggregation(ABC):
    """The base class of the ways in which a server aggregates."""

    def __init__(self, workload: Workload, clients: Clients, server: Server, exchange: Exchange) -> None:
        self._workload, self._algorithm, self._clients = workload, workload.algorithm, clients
        self._server, self._exchange = server, exchange

    @abstractmethod
    def play(self, step: Step, until: int) -> Done:
        """Train the clients of a step, and let the server step.

        Args:
            step: The next one.
            until: The last round whose clients may be trained, too, as far as they have begun by now.

        Raises:
            WorkerLostError: a process was lost; the step does not count.
            ClientError: a client failed, and the run may not continue without it.
            RunError: all clients failed.
        """

    @abstractmethod
    def alone(self, step: Step, client: str) -> Row:
        """Repeat one client's last phase of a step, after all that precedes it there; nothing is recorded.

        Raises:
            InputError: the client does not train in the step.
            ClientError: it failed.
        """

    def deployed(self, clients: Sequence[str], round_: int) -> tuple[dict[str, Vector], dict[str, Lot]]:
        """What clients need to reconstruct after a round, and what of it each reads."""
        return self._server.deployed(), {}

    def labels(self, client: str) -> Row:
        """Further columns of a client's rows in the ledger."""
        return {}

    @property
    def level(self) -> bool:
        """Whether no client has been trained for a step that is to come."""
        return True

    def restart(self) -> None:  # noqa: B027 - most have nothing in progress
        """Forget whatever was in progress."""

    @abstractmethod
    def _began_with(self, turn: Turn) -> ServerState:
        """The server's state that a client of the next step received."""

    def _given(self, step: Step) -> dict[str, int]:
        """What clients of the next step received who sent nothing [bytes]: what the round begins with."""
        in_vain = [turn for turn in step.turns if turn.in_vain]
        if not in_vain:
            return {}
        phase, sent, given = self._phases(step)[0].name, dict[int, dict[str, Vector]](), dict[str, int]()
        for turn in in_vain:
            state = self._began_with(turn)
            if id(state) not in sent:
                sent[id(state)] = self._server.broadcast(phase, f"round {step.round}", state)
            found = sent[id(state)]
            down = hooks.downlink(self._algorithm, turn.client, found, phase)
            given[turn.client] = sum(found[name].nbytes for name in down)
        return given

    def _phases(self, step: Step) -> list[Phase]:
        clients = cohort(step, self._clients)
        return hooks.phases(self._algorithm, clients, step.round, self._workload.seed)

    def _gathering(self, phase: Phase, round_: int) -> Gathered:
        return self._exchange.gathering(phase, self._server.uploads(phase.name, f"round {round_}"))

    def _repeated(self, asked: Asked, client: str, broadcast: Mapping[str, Vector]) -> Row:
        """The row of a client that trains again, alone."""
        faults = self._exchange.recurring(asked.round, asked.gathered.phase)
        self._exchange.gather([asked], broadcast, faults)
        if client in asked.gathered.failed:
            raise asked.gathered.failed[client]
        (row,) = asked.gathered.rows
        return row


class Together(Aggregation):
    """All clients of a round begin with the same state of the one server."""

    def play(self, step: Step, until: int) -> Done:
        """Phase after phase."""
        done = Done(given=self._given(step))
        for phase in self._phases(step):
            self._exchange.now = (step.round, phase.name)
            done.gone |= self._exchange.leaving(step.round, phase.name)
            gathered = self._asked(phase, step.round, done.gone)
            self._exchange.train([gathered], self._server.broadcast(phase.name, f"round {step.round}"))
            self._take_up(gathered)
            done.add(gathered.gathered)
        return done

    def alone(self, step: Step, client: str) -> Row:
        """All phases up to the client's last one, of which it does that alone."""
        phases = self._phases(step)
        own = [index for index, phase in enumerate(phases) if client in phase.clients]
        if not own:
            raise does_not_train(client, step.round, cohort(step, self._clients))
        gone = set[str]()
        for phase in phases[: own[-1]]:
            gone |= self._exchange.leaving(step.round, phase.name) - {client}
            asked = self._asked(phase, step.round, gone)
            broadcast = self._server.broadcast(phase.name, f"round {step.round}")
            self._exchange.gather([asked], broadcast, self._exchange.recurring(step.round, phase))
            if client in asked.gathered.failed:
                raise asked.gathered.failed[client]
            gone.update(asked.gathered.failed)
            self._take_up(asked)
        last = phases[own[-1]]
        asked = self._asked(last, step.round, {*last.clients} - {client})
        return self._repeated(asked, client, self._server.broadcast(last.name, f"round {step.round}"))

    def _began_with(self, turn: Turn) -> ServerState:
        return self._server.state

    def _asked(self, phase: Phase, round_: int, gone: set[str]) -> Asked:
        asked = tuple(client for client in phase.clients if client not in gone)
        return Asked(round=round_, gathered=self._gathering(phase, round_), clients=asked)

    def _take_up(self, asked: Asked) -> None:
        """Let the method update the server."""
        self._server.take_up(asked.gathered.received(), f"round {asked.round}")


def does_not_train(client: str, round_: int, clients: Sequence[str]) -> InputError:
    """What to raise where a client does not train in a round, in which some others do."""
    return InputError(f"--client {client}: does not train in round {round_}; {some(clients)} do")


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
