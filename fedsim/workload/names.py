"""Sites and clients by place and by name: a million of them cost what the entries of the file cost."""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Protocol, Self, TypeVar, overload

from fedsim.core.errors import InputError

POOLED = "all"
"""The client of a method that pools the data of all sites."""
_MOST_DIGITS = 19  # of the number of a client of a site; Python refuses to read thousands

T = TypeVar("T")


class ByPlace(Sequence[T]):
    """Items that are made when they are asked for; a subclass says how many there are, and makes each."""

    @abstractmethod
    def make(self, place: int) -> T:
        """The item at a place from 0."""

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[T, ...]: ...

    def __getitem__(self, place: int | slice) -> T | tuple[T, ...]:
        """One item, or those of a slice.

        Raises:
            IndexError: there is no such place.
        """
        found = range(len(self))[place]
        return self.make(found) if isinstance(found, int) else tuple(map(self.make, found))


class Entry(Protocol):
    """An entry of federation.sites, which stands for `count` sites."""

    @property
    def name(self) -> str:
        """Of the site, or what the names of its sites begin with."""

    @property
    def count(self) -> int:
        """Number of sites."""

    def numbered(self, number: int) -> Self:
        """Its site of a number from 1."""


def site_name(entry: Entry, number: int) -> str:
    """The name of an entry's site of a number from 1."""
    return f"{entry.name}-{number:0{_digits(entry.count)}d}" if entry.count > 1 else entry.name


def _digits(count: int) -> int:
    """Digits of the numbers of `count` sites."""
    return max(3, len(str(count)))


E = TypeVar("E", bound=Entry)


class Sites(ByPlace[E]):
    """The sites that some entries stand for, in order."""

    def __init__(self, entries: Iterable[E]) -> None:
        self.entries = tuple(entries)
        self._ends = list(accumulate((entry.count for entry in self.entries), initial=0))

    def __len__(self) -> int:
        """Number of sites."""
        return self._ends[-1]

    def make(self, place: int) -> E:
        """The site at a place."""
        entry, number = self._at(place)
        return entry.numbered(number)

    def name(self, place: int) -> str:
        """The name of the site at a place."""
        return site_name(*self._at(place))

    def _at(self, place: int) -> tuple[E, int]:
        """The entry of the site at a place, and the site's number."""
        at = bisect_right(self._ends, place) - 1
        return self.entries[at], place - self._ends[at] + 1

    @property
    def starts(self) -> list[int]:
        """The place of each entry's first site."""
        return self._ends[:-1]

    def place(self, name: str) -> int | None:
        """The place of the site of a name; None if there is none."""
        before, _, number = name.rpartition("-")
        counted, single = self._starts.get((before, len(number))), self._starts.get((name, 0))
        numbered = counted + int(number) - 1 if counted is not None and number.isdecimal() else None
        places = (place for place in (numbered, single) if place is not None and 0 <= place < len(self))
        return next((place for place in places if self.name(place) == name), None)

    def named(self, name: str) -> E:
        """The site of a name.

        Raises:
            KeyError: there is none.
        """
        place = self.place(name)
        if place is None:
            raise KeyError(name)
        return self.make(place)

    @cached_property
    def _starts(self) -> dict[tuple[str, int], int]:
        """The place of each entry's first site, by its name and the digits of its sites' numbers."""
        pairs = zip(self.entries, self.starts, strict=True)
        return {(entry.name, _digits(entry.count) if entry.count > 1 else 0): start for entry, start in pairs}


class ClientNames(ByPlace[str]):
    """The names of all clients, in the order of their sites."""

    def __init__(self, sites: Sites[E], clients: int | None) -> None:
        """The sites become `clients` clients, which are no fewer; None: one of each."""
        self.sites = sites
        self._each, self._more = divmod(len(sites) if clients is None else clients, max(1, len(sites)))

    def __len__(self) -> int:
        """Number of clients."""
        return self.start(len(self.sites))

    def start(self, site: int) -> int:
        """The place of the first client of the site at a place."""
        return site * self._each + min(site, self._more)

    def of_site(self, name: str) -> int:
        """Number of clients of the site of a name; 1 if it takes no part."""
        place = self.sites.place(name)
        return 1 if place is None else self.start(place + 1) - self.start(place)

    def site(self, place: int) -> int:
        """The place of the site of the client at a place."""
        larger = self._more * (self._each + 1)
        return place // (self._each + 1) if place < larger else self._more + (place - larger) // self._each

    def make(self, place: int) -> str:
        """The name of the client at a place."""
        at = self.site(place)
        name = self.sites.name(at)
        start, end = self.start(at), self.start(at + 1)
        return name if end - start == 1 else f"{name}.{place - start + 1}"

    def place(self, name: str) -> int | None:
        """The place of the client of a name; None if there is none."""
        site, _, number = name.partition(".")
        at = self.sites.place(site)
        if at is None or not (number or "1").isdecimal() or len(number) > _MOST_DIGITS:
            return None
        place = self.start(at) + int(number or "1") - 1
        return place if self.start(at) <= place < self.start(at + 1) and self.make(place) == name else None

    def __contains__(self, name: object) -> bool:
        """Whether there is a client of this name."""
        return isinstance(name, str) and self.place(name) is not None


def check_client(client: str, names: Sequence[str]) -> None:
    """Refuse a client that a run does not have.

    Raises:
        InputError: naming those it has, or the first of them.
    """
    if client not in names:
        more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
        raise InputError(f"--client {client}: the run's clients are {', '.join(names[:20])}{more}")
