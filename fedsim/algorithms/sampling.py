"""Who trains in a round: samplers, small classes that are also the workload section that configures them."""

from abc import abstractmethod
from collections.abc import Collection, Set
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, SerializeAsAny, WrapValidator

from fedsim.core.errors import InputError
from fedsim.core.extension import Catalogue, blamed
from fedsim.core.named import OR_NAME, Named
from fedsim.core.seeds import numpy_stream


class Registered(Protocol):
    """The clients that a sampler draws from, by their place in the federation."""

    def __len__(self) -> int:
        """Number of clients (N)."""

    @property
    def samples(self) -> NDArray[np.int64]:
        """Training slices of each client (N,); takes memory and time for all clients."""


class Sampler(Named):
    """The base class of all samplers."""

    around: ClassVar[frozenset[str]] = frozenset({"drawn", "_asked"})

    @abstractmethod
    def draw(self, clients: Registered, size: int, round_: int, seed: int) -> Collection[int]:
        """The places of `size` different clients, a function of (seed, round) and the clients alone."""

    def drawn(self, clients: Registered, size: int, round_: int, seed: int) -> list[int]:
        """The result of `draw` in ascending order; of a user's own class, after checking that it is a cohort.

        Args:
            clients: All clients.
            size: Of the cohort.
            round_: Counted from 1.
            seed: The workload's.

        Raises:
            InputError: `draw` raises, gives anything but `size` different places, or another cohort when asked again.
        """
        if not self.foreign:
            return sorted(map(int, self.draw(clients, size, round_, seed)))
        first = self._asked(clients, size, round_, seed)
        if self._asked(clients, size, round_, seed) != first:
            raise InputError(
                f"training.sampler, round {round_}: draw of {self.label} gives two cohorts for one round; draw from "
                "numpy_stream(seed, ..., round_) alone, not from np.random or random, and keep no state"
            )
        return first

    def _asked(self, clients: Registered, size: int, round_: int, seed: int) -> list[int]:
        where = f"training.sampler, round {round_}"
        with blamed(self, where, "draw"):
            drawn = self.draw(clients, size, round_, seed)
            found = np.asarray(list(drawn) if isinstance(drawn, Set) else drawn)
        whole = found.dtype.kind in "iu" and found.shape == (size,)
        places = np.unique(found) if whole else found
        inside = whole and places.shape == (size,)
        if not (inside and places[0] >= 0 and places[-1] < len(clients)):
            raise InputError(
                f"{where}: draw of {self.label} must give {size} different places from 0 to {len(clients) - 1}, "
                f"not {found!r:.80}"
            )
        cohort: list[int] = places.tolist()
        return cohort


class Uniform(Sampler):
    """Every client is as likely as any other."""

    name: Literal["uniform"] = Field("uniform", description="Every client is equally likely.")

    def draw(self, clients: Registered, size: int, round_: int, seed: int) -> Collection[int]:
        """Without replacement."""
        return numpy_stream(seed, "cohort", round_).choice(len(clients), size=size, replace=False)


class BySamples(Sampler):
    """Clients are drawn one after the other, each in proportion to its training slices."""

    name: Literal["by_samples"] = Field(description="In proportion to a client's training slices.")

    def draw(self, clients: Registered, size: int, round_: int, seed: int) -> Collection[int]:
        """Without replacement."""
        share = clients.samples / clients.samples.sum()
        return numpy_stream(seed, "cohort", round_).choice(len(clients), size=size, replace=False, p=share)


class Fixed(Sampler):
    """The same clients in every round, drawn once."""

    name: Literal["fixed"] = Field(description="The cohort of the first round in every round.")

    def draw(self, clients: Registered, size: int, round_: int, seed: int) -> Collection[int]:
        """What `uniform` draws for round 1."""
        return numpy_stream(seed, "cohort", 1).choice(len(clients), size=size, replace=False)


class Unread(Sampler):
    """A user's sampler, of which only the keys are read: its file is not executed."""

    model_config = ConfigDict(extra="allow")

    def draw(self, clients: Registered, size: int, round_: int, seed: int) -> Collection[int]:
        """Not known."""
        raise InputError(f"training.sampler: {self.name} is a user's own, whose code was not run")


_Known = Uniform | BySamples | Fixed
SAMPLERS = Catalogue(
    key="training.sampler",
    base=Sampler,
    unread=Unread,
    known=_Known.__args__,
    group="fedsim.samplers",
    noun="sampler",
)
"""Where a user's own samplers are found."""


AnySampler = Annotated[
    SerializeAsAny[Annotated[_Known, Field(discriminator="name")]],
    WrapValidator(SAMPLERS.read),
    SAMPLERS,
    *OR_NAME,
]
"""A known sampler, or one of the user's own: a name, or a section with the keys of that sampler."""
