"""Collecting the replies of the hosts of a phase, in whatever order they arrive."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsim.algorithms.base import Phase, Received, Upload, Vector
from fedsim.core.errors import ClientError
from fedsim.engine.host.merging import Level, Merger, together
from fedsim.engine.host.messages import Reply, Row


class Gathered:
    """Running sums, collected vectors and ledger rows of a phase; memory for one vector per upload, unless collected.

    Clients that failed, or were never asked, count neither in means nor as clients of the phase. The weights of the
    others stay what they were and are divided by their sum at the end, so that the bits do not depend on when it was
    known that a client would be missing.
    """

    def __init__(self, phase: Phase, uploads: Sequence[Upload], weights: Mapping[str, float], population: int) -> None:
        self.drawn = len(phase.clients)
        self.rows: list[Row] = []
        self.failed: dict[str, ClientError] = {}
        self.levels: dict[str, Level] = {}
        """What was added on the way of the sums so far."""
        self._phase, self._weights, self._population = phase, weights, population
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
        """The result, once all hosts have answered; it does not depend on the order of arrival."""
        there = {row["client"] for row in self.rows}
        clients = tuple(client for client in self._phase.clients if client in there)
        sums = {name: partial.total for name, partial in self._sums.sums().items()}
        kept = [upload.name for upload in self._uploads.values() if upload.collected]
        collected = {name: [self._collected[client][name] for client in clients] for name in kept}
        weight = math.fsum(self._weights[client] for client in clients)
        return Received(
            phase=replace(self._phase, clients=clients),
            sums=sums,
            weight=weight,
            collected=collected,
            population=self._population,
        )
