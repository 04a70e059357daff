"""Server steps whose clients began with different states of the server: buffered and asynchronous aggregation."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from fedsim.algorithms.base import ServerState, Vector
from fedsim.core.errors import RunError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.timetable import MOST_AHEAD
from fedsim.engine.clock.turns import Step, Turn
from fedsim.engine.gather import Gathered
from fedsim.engine.host.messages import Lot, Row, prefixed
from fedsim.engine.plan.sizes import nbytes
from fedsim.engine.server import Server
from fedsim.engine.steps.aggregation import Aggregation, Done, does_not_train
from fedsim.engine.steps.exchange import Asked, Exchange
from fedsim.engine.steps.stale import Stale, rebased
from fedsim.engine.steps.steps import StepOf, cohort
from fedsim.workload.schema import Workload
from fedsim.workload.time import Time

_AHEAD_BYTES = 256e6  # of what waits for them


def most_ahead(state: float) -> int:
    """How many steps ahead clients are trained: for each a float64 sum waits, and a broadcast is sent.

    Args:
        state: Size of the server's [bytes].
    """
    return max(1, min(MOST_AHEAD, int(_AHEAD_BYTES / max(3 * state, 1))))


class Overlapping(Aggregation):
    """Each client trains from the server's state at which it began, and enters the step in which it ends.

    A client is at work once at a time, and what it does depends on that state alone. So it may be trained as soon as
    the state is known, together with clients of other steps; what it sends waits here for its step.
    """

    def __init__(
        self,
        workload: Workload,
        clients: Clients,
        server: Server,
        exchange: Exchange,
        *,
        time: Time,
        step_of: StepOf,
    ) -> None:
        super().__init__(workload, clients, server, exchange)
        self._time, self._step_of = time, step_of
        self._waiting: dict[int, Gathered] = {}  # by round

    @property
    def level(self) -> bool:
        """Whether nothing waits for a step that is to come."""
        return not self._waiting

    def restart(self) -> None:
        """Forget what waits."""
        self._waiting = {}

    def play(self, step: Step, until: int) -> Done:
        """Train the clients of the step that have not been trained yet and, with them, others that have begun."""
        if self._to_train(step, step.round):
            last = step.round + most_ahead(nbytes(self._server.state))
            steps = ((at, self._to_train(at, step.round)) for at in self._from(step.round, min(until, last)))
            asked = [self._asked(at, turns) for at, turns in steps if turns]
            self._exchange.now = (step.round, asked[0].gathered.phase.name)
            self._exchange.train(asked, self._broadcast(asked, step.round))
        gathered, done = self._waiting.pop(step.round), Done(given=self._given(step))
        self._take_up(step, gathered)
        done.add(gathered)
        done.gone = {*gathered.phase.clients} - done.rows.keys()
        return done

    def alone(self, step: Step, client: str) -> Row:
        """The client's turn, from the state at which it began."""
        turns = [turn for turn in step.turns if turn.client == client and turn.outcome == "trained"]
        if not turns:
            raise does_not_train(client, step.round, cohort(step, self._clients))
        asked = self._asked(step, turns)
        return self._repeated(asked, client, self._broadcast([asked], step.round))

    def _began_with(self, turn: Turn) -> ServerState:
        return self._states(turn.round)[turn.version]

    def _from(self, first: int, last: int) -> Iterator[Step]:
        """Steps from one round to another; if no client finishes any more, those before."""
        with suppress(RunError):
            yield from map(self._step_of, range(first, last + 1))

    def _to_train(self, step: Step, now: int) -> list[Turn]:
        """The turns of a step that began before the server steps for round `now`, and that have not been asked for."""
        asked = self._waiting[step.round].asked if step.round in self._waiting else ()
        return [
            turn for turn in step.turns if turn.outcome == "trained" and turn.version < now and turn.client not in asked
        ]

    def _asked(self, step: Step, turns: Sequence[Turn]) -> Asked:
        """Turns of a step that are asked for now; clients that were dropped from it before are left out."""
        if step.round not in self._waiting:
            (phase,) = self._phases(step)
            self._waiting[step.round] = self._gathering(phase, step.round)
        gathered = self._waiting[step.round]
        gathered.asked.update(turn.client for turn in turns)
        gone = self._exchange.leaving(step.round, gathered.phase.name)
        lots = {turn.client: self._lot(turn) for turn in turns if turn.client not in gone}
        return Asked(round=step.round, gathered=gathered, clients=tuple(lots), lots=lots)

    def _lot(self, turn: Turn) -> Lot:
        return Lot(
            round=turn.round,
            staleness=turn.staleness,
            reads=f"{turn.version}/",
            enters=f"{turn.round}/",
            scale=self._factor(turn),
        )

    def _factor(self, turn: Turn) -> float:
        """c_i of `stale.py`."""
        mixing = self._time.mixing if self._time.mode == "asynchronous" else 1.0
        return mixing * self._time.staleness.factor(turn.staleness)

    def _states(self, now: int) -> dict[int, ServerState]:
        """The server's states by version, before it steps for round `now`."""
        return {**{int(version): state for version, state in self._server.others.items()}, now - 1: self._server.state}

    def _broadcast(self, asked: Sequence[Asked], now: int) -> dict[str, Vector]:
        """What clients read, each under the prefix of the version at which it began."""
        phase, reads = asked[0].gathered.phase.name, {lot.reads for one in asked for lot in one.lots.values()}
        return prefixed(
            {
                f"{version}/": self._server.broadcast(phase, f"round {now}", state)
                for version, state in sorted(self._states(now).items())
                if f"{version}/" in reads
            }
        )

    def _take_up(self, step: Step, gathered: Gathered) -> None:
        """Let the server step; its states at which clients at work have begun are kept."""
        states, received = self._states(step.round), gathered.received()
        turns = {turn.client: turn for turn in step.turns}
        stale = [self._stale(turns[client], gathered.weights[client]) for client in received.phase.clients]
        received = rebased(received, stale, step.round - 1, states)
        self._server.take_up(received, f"round {step.round}")
        kept = sorted(version for version in step.in_flight if version < step.round)
        self._server.others = {str(version): states[version] for version in kept}

    def _stale(self, turn: Turn, weight: float) -> Stale:
        own = turn.version if self._time.mode == "buffered" else turn.round - 1
        return Stale(weight, self._factor(turn), own)
