"""Uploads at a host: checked first, then summed or kept separately."""

import warnings
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Algorithm, Upload, Vector
from fedsim.algorithms.hooks import Made
from fedsim.core.errors import DivergedError
from fedsim.engine.host.merging import PartialSum
from fedsim.engine.host.sums import DeviceSum, OrderFreeSum

Sent = Mapping[str, Vector]
"""A client's uploads by name, as the server gets them."""

SCALED = frozenset({"shared", "buffers"})
"""The uploads that count for less where a client began with an earlier state of the server."""


def uploads_of(algorithm: Algorithm, phase: str, server: Collection[str], where: str = "") -> list[Upload]:
    """What clients send in a phase: the method's uploads and, with shared parameters, their running statistics.

    Args:
        algorithm: The method.
        phase: Its name for a part of a round.
        server: Names in the server's state; it has `buffers` where shared layers keep running statistics.
        where: The round, for what goes wrong.
    """
    uploads = hooks.uploads(algorithm, phase, where)
    travels = "buffers" in server and any(upload.name == "shared" for upload in uploads)
    return [*uploads, Upload("buffers")] if travels else uploads


class PartialSums:
    """The sums over the clients of one host."""

    def __init__(self, uploads: Collection[Upload]) -> None:
        self._uploads = uploads
        self._totals: dict[str, OrderFreeSum] = {}

    def check(
        self, sent: Made, sizes: Mapping[str, float], weight: float, who: str, scale: float = 1.0
    ) -> dict[str, float]:
        """The largest term of each upload that is summed; refuses uploads that cannot be summed, before any is added.

        Args:
            sent: A client's uploads.
            sizes: The largest absolute value of each.
            weight: The client's.
            who: Client and round.
            scale: Of what is `SCALED`, beside the weight.

        Raises:
            DivergedError: a vector has NaN, infinite or out-of-range values.
        """
        bounds = {}
        for upload in self._uploads:
            vector, size = sent[upload.name], sizes[upload.name]
            if upload.summed:
                if upload.name not in self._totals:
                    self._totals[upload.name] = _sum_of(vector, upload.grid)
                times = _times(upload, weight, scale)
                bounds[upload.name] = self._totals[upload.name].check(vector, size, times, who)
            elif not np.isfinite(size):
                raise DivergedError(f"{who}: sent NaN or infinite values; lower its lr")
        return bounds

    def add(self, sent: Made, weight: float, bounds: Mapping[str, float], scale: float = 1.0) -> None:
        """Add a client's uploads, given what `check` found with the same weight and scale."""
        for upload in self._uploads:
            if upload.summed:
                times = _times(upload, weight, scale)
                self._totals[upload.name].add(sent[upload.name], times, bounds[upload.name])

    def apart(self, sent: Made) -> dict[str, Vector]:
        """Copies of the uploads that the server wants individually."""
        return {
            upload.name: sent[upload.name].to("cpu", copy=True).numpy() for upload in self._uploads if upload.collected
        }

    def partials(self) -> dict[str, PartialSum]:
        """The sums by name, to be merged with those of other hosts."""
        return {name: total.partial for name, total in self._totals.items()}


def _times(upload: Upload, weight: float, scale: float) -> float:
    if not upload.weighted:
        return 1.0
    return weight * scale if upload.name in SCALED else weight


def _sum_of(vector: Tensor, grid: int) -> OrderFreeSum:
    """An empty sum where a vector lies."""
    if vector.is_cuda:
        return DeviceSum(vector.numel(), grid, vector.device)
    return OrderFreeSum(vector.numel(), grid)


def as_tensors(vectors: Mapping[str, Vector]) -> dict[str, Tensor]:
    """Tensors on the same memory; the object store's is read-only, and nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {name: torch.from_numpy(vector) for name, vector in vectors.items()}
