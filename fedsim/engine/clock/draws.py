"""Who is drawn in simulated time: sites join and leave, and what a sampler draws from are those that are in."""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedsim.algorithms.sampling import Registered
from fedsim.engine.clients.sequence import Clients
from fedsim.workload.schema import Workload


class _Some:
    """Some of the clients, for a sampler to draw from."""

    def __init__(self, clients: Registered, places: NDArray[np.int64]) -> None:
        self._clients, self._places = clients, places

    def __len__(self) -> int:
        """Number of them."""
        return len(self._places)

    @property
    def samples(self) -> NDArray[np.int64]:
        """Training slices of each (N,)."""
        return self._clients.samples[self._places]


class Draws:
    """Draws from the clients that are in at a round."""

    def __init__(self, workload: Workload, clients: Clients) -> None:
        self._training, self._seed, self._clients = workload.training, workload.seed, clients
        names = workload.federation.client_names()
        sites = names.sites
        places = (names.start(site) for site in (*sites.starts, len(sites)))
        self._stays = list(zip(workload.federation.stays, pairwise(places), strict=True))
        """First and last round of each entry of the sites, and the places from and up to which its clients are."""
        self._all_stay = set(workload.federation.stays) == {(1, math.inf)}
        self._everybody = np.arange(len(clients))
        self._members = 0, self._everybody
        """A round, and the places of those that are in."""

    def members(self, round_: int) -> NDArray[np.int64]:
        """The places of the clients that are in, ascending."""
        if self._all_stay:
            return self._everybody
        if self._members[0] != round_:
            parts = [np.arange(*part) for (joins, leaves), part in self._stays if joins <= round_ <= leaves]
            self._members = round_, np.concatenate(parts)
        return self._members[1]

    def cohort(self, round_: int) -> int:
        """Number of clients in a round: the workload's, of those that are in."""
        return self._training.drawn(len(self.members(round_)))

    def draw(self, places: NDArray[np.int64], size: int, number: int) -> list[int]:
        """What the workload's sampler draws.

        Args:
            places: Of those to draw from, ascending.
            size: How many; all, if there are fewer.
            number: Of the draw, the sampler's round.
        """
        everybody = len(places) == len(self._clients)
        pool = self._clients if everybody else _Some(self._clients, places)
        drawn = self._training.sampler.drawn(pool, min(size, len(places)), number, self._seed)
        return drawn if everybody else places[drawn].tolist()
