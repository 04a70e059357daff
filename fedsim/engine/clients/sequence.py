"""The clients of a federation as a sequence: all made at the start, or each made when it first takes part."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fedsim.core.errors import InputError, refusing
from fedsim.engine.clients.site import Made, made_alone
from fedsim.engine.host.client import ClientSpec
from fedsim.workload.names import ByPlace
from fedsim.workload.schema import Workload
from fedsim.workload.sites import MOST_LISTED

_KEPT = 1024  # sites made last


class Clients(ByPlace[ClientSpec]):
    """All clients in order, by place and by name."""

    names: Sequence[str]
    typical: tuple[ClientSpec, ...]
    """Clients that stand for all in estimates, with those of every entry of federation.sites among them."""

    @property
    @abstractmethod
    def samples(self) -> NDArray[np.int64]:
        """Training slices of each client (N,)."""

    @abstractmethod
    def place(self, name: str) -> int:
        """The place of the client of a name."""

    def named(self, name: str) -> ClientSpec:
        """The client of a name."""
        return self[self.place(name)]

    @property
    def listed(self) -> bool:
        """Whether all clients exist from the start."""
        return len(self.typical) == len(self)


class Listed(Clients):
    """Clients that exist."""

    def __init__(self, clients: Iterable[ClientSpec]) -> None:
        self.typical = tuple(clients)
        self.names = tuple(client.name for client in self.typical)
        self._places = {name: place for place, name in enumerate(self.names)}

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.typical)

    def make(self, place: int) -> ClientSpec:
        """The client at a place."""
        return self.typical[place]

    def place(self, name: str) -> int:
        """The place of the client of a name."""
        return self._places[name]

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """Training slices of each client (N,)."""
        return _constant(client.data.samples() for client in self.typical)


class Registered(Clients):
    """Clients of counted phantom sites, made from the workload's seed and their names, and those of sites that exist.

    Those of the sites asked for last are kept; no client is made before it is asked for.
    """

    def __init__(self, workload: Workload, listed: Mapping[str, Made]) -> None:
        """Clients of a workload, and its sites that exist, by name.

        Raises:
            InputError: a round would have too many of them, or a site cannot be cut into its clients.
        """
        self._sites, self._names = workload.federation.expanded_sites(), workload.federation.client_names()
        self.names = self._names
        self._workload, self._listed = workload, listed
        cohort = workload.at_work
        self.site = lru_cache(max(_KEPT, 2 * cohort))(self._site)
        """The site at a place."""
        starts = [self._names.start(site) for site in self._sites.starts]
        for start in starts:  # refuses more clients than a site can become before all of them are walked
            self.make(start)
        _check_rounds(workload, len(self))
        spaced = (place * len(self) // cohort for place in range(cohort))
        self.typical = tuple(map(self._standing, sorted({*starts, *spaced})))

    def __len__(self) -> int:
        """Number of clients."""
        return len(self._names)

    def make(self, place: int) -> ClientSpec:
        """The client at a place."""
        site = self._names.site(place)
        return self.site(site).clients[place - self._names.start(site)]

    def _standing(self, place: int) -> ClientSpec:
        """A client that stands for others in estimates: with those like it, it trains in every round."""
        client = self.make(place)
        each_round = {"participation": 1.0, "cohort": None}
        return replace(client, training=client.training.model_copy(update=each_round))

    def place(self, name: str) -> int:
        """The place of the client of a name.

        Raises:
            KeyError: there is none.
        """
        place = self._names.place(name)
        if place is None:
            raise KeyError(name)
        return place

    def _site(self, place: int) -> Made:
        site = self._sites.make(place)
        clients = self._names.start(place + 1) - self._names.start(place)
        return self._listed.get(site.name) or made_alone(self._workload, site, clients)

    def of_site(self, name: str) -> Made | None:
        """The site of a name, with its clients; None if there is none that takes part."""
        place = self._sites.place(name)
        return None if place is None else self.site(place)

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """Training slices of each client (N,); sites of an entry are alike, unless they are cut into clients."""
        sites = self._sites
        if len(sites) < len(self):
            return _constant(client.data.samples() for client in self)
        first = [self[start].data.samples() for start in sites.starts]
        return _constant(first, [entry.count for entry in sites.entries])


@refusing()
def _check_rounds(workload: Workload, clients: int) -> None:
    """Refuse rounds that would make more clients than a federation may list, as if by forgetting to say how many.

    Raises:
        RefusedError: naming the key.
    """
    time, training = workload.time, workload.training
    if workload.at_work > MOST_LISTED:
        drawn = "training.participation" if training.cohort is None else "training.cohort"
        key = "time.concurrency" if time is not None and time.overlaps and time.concurrency else drawn
        what = f"{workload.at_work:,} of {clients:,} clients would be at work at once"
        raise InputError(f"{key}: {what}; at most {MOST_LISTED:,} can, so set training.cohort, or lower it")
    if (scored := workload.metrics.count(clients, 0)) > MOST_LISTED:
        what = f"{scored:,} clients would be scored after a round"
        raise InputError(
            f"metrics.clients: {what}; at most {MOST_LISTED:,} can, so set it to cohort or to their number"
        )


def _constant(counts: Iterable[int], times: int | list[int] = 1) -> NDArray[np.int64]:
    """An array that no sampler can change, with each of its elements as often as is said."""
    found = np.repeat(np.fromiter(counts, np.int64), times)
    found.flags.writeable = False
    return found
