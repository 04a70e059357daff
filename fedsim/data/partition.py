"""Dividing a site's training data among its clients: evenly, or as unevenly as hospitals are.

Both kinds of skew follow the usual benchmarks: shares are drawn from a Dirichlet distribution, with strong skew for a
small alpha and nearly equal shares for a large one. Label skew (the labels are contrasts): Yurochkin et al., ICML 2019,
and Hsu et al., arXiv:1909.06335. Quantity skew: Li et al. (NIID-Bench), ICDE 2022.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.core.section import Section
from fedsim.data.split import Piece, deal

Alpha = Annotated[float, Field(ge=1e-3, le=1e6)]
Unit = tuple[str, str]
"""What is assigned to a client as a whole: a subject, or a subject's volumes of one contrast ("" for all)."""


class Partition(Section):
    """How a site's training data are divided among its clients; validation and test data stay with the site."""

    def hands(self, train: Sequence[Piece], clients: int, rng: np.random.Generator, site: str) -> list[set[str]]:
        """The names of each client's training volumes; every volume goes to one client, and no client is empty.

        Args:
            train: The site's training pieces.
            clients: Number of clients.
            rng: Generator that shares and order are drawn from.
            site: Its name, for messages.

        Raises:
            InputError: there are fewer subjects (or pairs of subject and contrast) than clients, or the files name no
                contrasts.
        """
        units: dict[Unit, list[Piece]] = defaultdict(list)
        for piece in train:
            units[self._unit(piece)].append(piece)
        self._check(units, clients, site)
        hands = self._dealt({unit: self._size(pieces) for unit, pieces in units.items()}, clients, rng)
        return [{piece.volume for unit in hand for piece in units[unit]} for hand in hands]

    def _check(self, units: Collection[Unit], clients: int, site: str) -> None:
        """Refuse what cannot be divided."""
        if clients > len(units):
            raise InputError(
                f"federation.clients: site {site} has {len(units)} training subjects, "
                f"so it can become {len(units)} clients at most, not {clients}"
            )

    def _unit(self, piece: Piece) -> Unit:
        return piece.subject, ""

    def _size(self, pieces: Sequence[Piece]) -> int:
        """The weight of a unit."""
        return 1

    @abstractmethod
    def _dealt(self, units: Mapping[Unit, int], clients: int, rng: np.random.Generator) -> list[list[Unit]]:
        """The units of each client, given the weight of each unit."""


class Equal(Partition):
    """Subjects are dealt round-robin: clients differ by one subject at most."""

    kind: Literal["equal"] = Field("equal", description="The same number of subjects for each client.")

    def _dealt(self, units: Mapping[Unit, int], clients: int, rng: np.random.Generator) -> list[list[Unit]]:
        return deal(list(units), clients)


class Quantity(Partition):
    """Quantity skew: clients' shares of the training slices are drawn from Dirichlet(alpha); subjects stay whole."""

    kind: Literal["quantity"] = Field(description="Unequal numbers of slices; subjects stay whole.")
    alpha: Alpha = Field(0.5, description="Dirichlet concentration; small: strong skew, large: nearly equal.")

    def _size(self, pieces: Sequence[Piece]) -> int:
        return sum(piece.stop - piece.start for piece in pieces)

    def _dealt(self, units: Mapping[Unit, int], clients: int, rng: np.random.Generator) -> list[list[Unit]]:
        return _skewed(units, _shares(rng, self.alpha, clients), rng)


class Dirichlet(Partition):
    """Shares drawn from Dirichlet(alpha): of a site's subjects, or of each contrast's volumes (label skew).

    By subject, each subject is at one client. By contrast, shares are drawn for each contrast separately, so clients
    differ in their mix; volumes of one subject with different contrasts may then be at different clients, as if the
    person had been scanned in two hospitals, but never in different splits.
    """

    kind: Literal["dirichlet"] = Field(description="Unequal numbers of subjects, or a different mix of contrasts each.")
    alpha: Alpha = Field(0.5, description="Dirichlet concentration; small: strong skew, large: nearly equal.")
    by: Literal["subject", "contrast"] = Field("subject", description="What is skewed: numbers of subjects, or labels.")

    def _check(self, units: Collection[Unit], clients: int, site: str) -> None:
        contrasts = sorted({contrast for _, contrast in units})
        if self.by == "contrast" and len(contrasts) < 2:
            there = f"one contrast ({contrasts[0]})" if contrasts[0] else "no contrasts that its files name"
            raise InputError(f"federation.partition.by: site {site} has {there}; divide it by subject")
        if self.by == "contrast" and clients > len(units):
            raise InputError(
                f"federation.clients: site {site} has {len(units)} pairs of training subject and contrast, "
                f"so it can become {len(units)} clients at most, not {clients}"
            )
        super()._check(units, clients, site)

    def _unit(self, piece: Piece) -> Unit:
        return piece.subject, piece.contrast if self.by == "contrast" else ""

    def _dealt(self, units: Mapping[Unit, int], clients: int, rng: np.random.Generator) -> list[list[Unit]]:
        if self.by == "subject":
            return _skewed(units, _shares(rng, self.alpha, clients), rng)
        hands: list[list[Unit]] = [[] for _ in range(clients)]
        for contrast in sorted({contrast for _, contrast in units}):
            shares = _shares(rng, self.alpha, clients)
            own = {unit: size for unit, size in units.items() if unit[1] == contrast}
            for hand, more in zip(hands, _skewed(own, shares, rng, may_be_empty=True), strict=True):
                hand.extend(more)
        return _none_empty(hands)


AnyPartition = Annotated[Equal | Dirichlet | Quantity, Field(discriminator="kind")]
"""The section `federation.partition`."""


def _shares(rng: np.random.Generator, alpha: float, clients: int) -> list[float]:
    """Positive shares that sum to one."""
    drawn = np.maximum(rng.dirichlet(np.full(clients, alpha)), np.finfo(np.float64).tiny)
    return list(map(float, drawn / drawn.sum()))


def _skewed(
    units: Mapping[Unit, int], shares: Sequence[float], rng: np.random.Generator, *, may_be_empty: bool = False
) -> list[list[Unit]]:
    """The units in groups with sizes as close to `shares` as whole units allow.

    Large units go first, equally large ones in a drawn order, each to the group that lacks most.
    """
    order = [list(units)[place] for place in rng.permutation(len(units))]
    total = sum(units.values())
    lacking = [share * total for share in shares]
    hands: list[list[Unit]] = [[] for _ in shares]
    for left, unit in zip(range(len(order), 0, -1), sorted(order, key=lambda one: -units[one]), strict=True):
        empty = [index for index, hand in enumerate(hands) if not hand]
        open_ = empty if len(empty) == left and not may_be_empty else range(len(hands))
        index = max(open_, key=lambda one: lacking[one])
        hands[index].append(unit)
        lacking[index] -= units[unit]
    return hands


def _none_empty(hands: list[list[Unit]]) -> list[list[Unit]]:
    """The groups, after moving the last unit of the largest group into each empty one."""
    for hand in hands:
        if not hand:
            hand.append(max(hands, key=len).pop())
    return hands
