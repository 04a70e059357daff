"""Collecting the replies of the hosts of a phase, in whatever order they arrive."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsim.algorithms.base import Phase, Received, Upload, Vector
from fedsim.core.errors import ClientError
from fedsim.engine.host.merging import Level, Merger, PartialSum, together
from fedsim.engine.host.messages import Lot, Reply, Row


class Gathered:
    """Running sums, collected vectors and ledger rows of a phase; memory for one vector per upload, unless collected.

    Clients that failed, or were never asked, count neither in means nor as clients of the phase. The weights of the
    others stay what they were and are divided by their sum at the end, so that the bits do not depend on when it was
    known that a client would be missing.
    """

    def __init__(self, phase: Phase, uploads: Sequence[Upload], weights: Mapping[str, float], population: int) -> None:
        self.phase, self.weights = phase, weights
        self.asked: set[str] = set()
        """The clients that have been asked, in one call or in several."""
        self.rows: list[Row] = []
        self.failed: dict[str, ClientError] = {}
        self.levels: dict[str, Level] = {}
        """What was added on the way of the sums so far."""
        self._population = population
        self._uploads = {upload.name: upload for upload in uploads}
        self._sums = Merger()
        self._collected: dict[str, Mapping[str, Vector]] = {}

    def add(self, reply: Reply) -> None:
        """Add the reply of one host."""
        if reply.sums:
            self.levels = together(self.levels, reply.levels, {"driver": self._sums.add(reply.sums)})
        self._collected.update(reply.collected)
        self.rows += reply.rows
        self.failed.update(reply.failed)

    def received(self) -> Received:
        """The result, once all hosts have answered; it does not depend on the order of arrival.

        The weights in the rows sum to one from then on.
        """
        there = {row["client"] for row in self.rows}
        clients = tuple(client for client in self.phase.clients if client in there)
        sums = {name: partial.total for name, partial in self._sums.sums().items()}
        kept = [upload.name for upload in self._uploads.values() if upload.collected]
        collected = {name: [self._collected[client][name] for client in clients] for name in kept}
        weight = math.fsum(self.weights[client] for client in clients)
        if len(clients) < len(self.phase.clients):
            for row in self.rows:
                row["weight"] = self.weights[row["client"]] / weight
        return Received(
            phase=replace(self.phase, clients=clients),
            sums=sums,
            weight=weight,
            collected=collected,
            population=self._population,
        )


def by_sum(reply: Reply, lots: Mapping[str, Lot]) -> dict[str, Reply]:
    """A reply divided by the sums that its clients' uploads enter; its levels go with the first of them."""
    parts: defaultdict[str, Reply] = defaultdict(Reply)
    for row in reply.rows:
        parts[lots[row["client"]].enters].rows.append(row)
    for client, error in reply.failed.items():
        parts[lots[client].enters].failed[client] = error
    for client, vectors in reply.collected.items():
        parts[lots[client].enters].collected[client] = vectors
    sums: defaultdict[str, dict[str, PartialSum]] = defaultdict(dict)
    for name, partial in reply.sums.items():
        lot, slash, upload = name.partition("/")
        sums[lot + slash][upload] = partial
    for number, (enters, partials) in enumerate(sums.items()):
        parts[enters].sums = partials
        parts[enters].levels = {} if number else reply.levels
    return parts
