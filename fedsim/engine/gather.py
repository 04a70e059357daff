"""Collecting the replies of the hosts of a phase, in whatever order they arrive."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsim.algorithms.base import Phase, Received, Upload, Vector
from fedsim.core.errors import ClientError, MethodError
from fedsim.engine.host.messages import Reply, Row
from fedsim.engine.host.sums import OrderFreeSum


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
        self._phase, self._weights, self._population = phase, weights, population
        self._uploads = {upload.name: upload for upload in uploads}
        self._sums: dict[str, OrderFreeSum] = {}
        self._collected: dict[str, Mapping[str, Vector]] = {}

    def add(self, reply: Reply) -> None:
        """Add the reply of one host."""
        for name, partial in reply.sums.items():
            total = self._sums.setdefault(name, OrderFreeSum(partial.size, self._uploads[name].grid))
            if total.total.size != partial.size:
                sizes = f"vectors of {total.total.size} and of {partial.size} values as {name!r}"
                raise MethodError(f"phase {self._phase.name}: clients sent {sizes}; what is summed must be alike")
            total.merge(partial)
        self._collected.update(reply.collected)
        self.rows += reply.rows
        self.failed.update(reply.failed)

    def received(self) -> Received:
        """The result, once all hosts have answered; it does not depend on the order of arrival."""
        there = {row["client"] for row in self.rows}
        clients = tuple(client for client in self._phase.clients if client in there)
        sums = {name: total.total for name, total in self._sums.items()}
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
