"""Regions of the federation with servers of their own, whose parameters are averaged now and then."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from fedsim.algorithms.base import Phase, ServerState, Vector
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.clock.turns import Step, Turn
from fedsim.engine.host.messages import Lot, Row, prefixed
from fedsim.engine.plan.sizes import nbytes
from fedsim.engine.server import Server
from fedsim.engine.steps.aggregation import Aggregation, Done, does_not_train
from fedsim.engine.steps.exchange import Asked, Exchange
from fedsim.engine.steps.steps import cohort
from fedsim.workload.schema import Workload
from fedsim.workload.time import Hierarchy

_AVERAGED = ("shared", "buffers")


class Regional(Aggregation):
    """Each region's server steps with the clients of its region; its state is `others` of the server of all."""

    def __init__(
        self,
        workload: Workload,
        clients: Clients,
        server: Server,
        exchange: Exchange,
        *,
        hierarchy: Hierarchy,
    ) -> None:
        super().__init__(workload, clients, server, exchange)
        self._hierarchy = hierarchy

    def play(self, step: Step, until: int) -> Done:
        """All regions in one call; then, if it is time, their average."""
        asked = self._asked(step)
        self._exchange.now = (step.round, next(iter(asked.values())).gathered.phase.name)
        self._exchange.train(list(asked.values()), self._broadcast(asked, step.round))
        done = Done(given=self._given(step))
        for region, one in asked.items():
            server = self._server_of(region)
            server.take_up(one.gathered.received(), f"round {step.round}")
            self._server.others[region] = server.state
            done.add(one.gathered)
        done.gone = {*cohort(step, self._clients)} - done.rows.keys()
        done.columns = self._synchronise(step.round)
        return done

    def alone(self, step: Step, client: str) -> Row:
        """The client's turn, from the state of its region."""
        for region, one in self._asked(step).items():
            if client in one.clients:
                alone = replace(one, clients=(client,))
                return self._repeated(alone, client, self._broadcast({region: alone}, step.round))
        raise does_not_train(client, step.round, cohort(step, self._clients))

    def deployed(self, clients: Sequence[str], round_: int) -> tuple[dict[str, Vector], dict[str, Lot]]:
        """The parameters of each client's region."""
        lots = {name: Lot(round=round_, reads=f"{self._region(name)}/") for name in clients}
        regions = dict.fromkeys(self._region(name) for name in clients)
        return prefixed({f"{region}/": self._server_of(region).deployed() for region in regions}), lots

    def labels(self, client: str) -> Row:
        """The client's region, counted from 1."""
        return {"region": int(self._region(client)) + 1}

    def _began_with(self, turn: Turn) -> ServerState:
        return self._server_of(self._region(turn.client)).state

    def _region(self, client: str) -> str:
        return str(self._hierarchy.region(self._clients.place(client), len(self._clients)))

    def _server_of(self, region: str) -> Server:
        return Server(self._algorithm, self._server.others.get(region, self._server.state))

    def _asked(self, step: Step) -> dict[str, Asked]:
        """The clients of the step, by region."""
        (phase,) = self._phases(step)
        gone = self._exchange.leaving(step.round, phase.name)
        members = defaultdict[str, list[str]](list)
        for name in phase.clients:
            members[self._region(name)].append(name)
        found = {}
        for region, names in members.items():
            gathered = self._gathering(Phase(tuple(names), phase.name), step.round)
            lot = Lot(round=step.round, reads=f"{region}/", enters=f"{region}/")
            lots = {name: lot for name in names if name not in gone}
            found[region] = Asked(round=step.round, gathered=gathered, clients=tuple(lots), lots=lots)
        return found

    def _broadcast(self, asked: dict[str, Asked], round_: int) -> dict[str, Vector]:
        return prefixed(
            {
                f"{region}/": self._server_of(region).broadcast(one.gathered.phase.name, f"round {round_}")
                for region, one in asked.items()
            }
        )

    def _synchronise(self, round_: int) -> Row:
        """Average the regions, if it is time; the columns of the round's row that say what that sent [bytes]."""
        sent = 0
        if round_ % self._hierarchy.rounds_per_sync == 0:
            regions = [str(region) for region in range(self._hierarchy.regions)]
            states = [self._server_of(region).state for region in regions]
            mean = _mean(states, self._weights())
            self._server.state = {**self._server.state, **mean}
            self._server.others = {region: {**state, **mean} for region, state in zip(regions, states, strict=True)}
            sent = len(regions) * nbytes(mean)
        return {"region_uplink_bytes": sent, "region_downlink_bytes": sent}

    def _weights(self) -> list[float]:
        """Of the regions, which sum to one: their clients, or their training slices."""
        clients = len(self._clients)
        own = np.ones(clients) if self._algorithm.weighting == "uniform" else self._clients.samples
        regions = [self._hierarchy.region(place, clients) for place in range(clients)]
        totals = np.bincount(regions, own, minlength=self._hierarchy.regions)
        weights: list[float] = (totals / totals.sum()).tolist()
        return weights


def _mean(states: Sequence[ServerState], weights: Sequence[float]) -> dict[str, Vector]:
    """The weighted mean of what the regions deploy."""

    def mean(name: str) -> Vector:
        terms = (weight * state[name].astype(np.float64) for weight, state in zip(weights, states, strict=True))
        total: NDArray[np.float64] = reduce(np.add, terms) / np.sum(weights)
        return total.astype(np.float32)

    return {name: mean(name) for name in _AVERAGED if name in states[0]}
