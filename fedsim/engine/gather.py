"""Folding in what comes back from the hosts of a phase, in whatever order it comes."""

import math
from collections.abc import Mapping, Sequence

from fedsim.algorithms.base import Phase, Received, Upload, Vector
from fedsim.engine.aggregation import OrderFreeSum
from fedsim.engine.messages import Reply, Row


class Gathered:
    """Running sums, collected vectors and ledger rows of a phase; memory for one vector an upload, unless collected."""

    def __init__(self, phase: Phase, uploads: Sequence[Upload], weights: Mapping[str, float], population: int) -> None:
        self.rows: list[Row] = []
        self._phase, self._weights, self._population = phase, weights, population
        self._uploads = {upload.name: upload for upload in uploads}
        self._sums: dict[str, OrderFreeSum] = {}
        self._collected: dict[str, Mapping[str, Vector]] = {}

    def add(self, reply: Reply) -> None:
        """Fold in the reply of one host."""
        for name, partial in reply.sums.items():
            self._sums.setdefault(name, OrderFreeSum(partial.size, self._uploads[name].grid)).merge(partial)
        self._collected.update(reply.collected)
        self.rows += reply.rows

    def received(self) -> Received:
        """Everything, once all hosts have answered; nothing in it depends on the order of arrival."""
        sums = {name: total.total for name, total in self._sums.items()}
        kept = [upload.name for upload in self._uploads.values() if upload.collected]
        collected = {name: [self._collected[client][name] for client in self._phase.clients] for name in kept}
        return Received(self._phase, sums, math.fsum(self._weights.values()), collected, self._population)
