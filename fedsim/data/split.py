"""Dividing a site's volumes into training, validation and test, and its training subjects among clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import numpy as np
from pydantic import Field, model_validator

from fedsim.core.errors import InputError
from fedsim.core.section import Section
from fedsim.core.seeds import derive
from fedsim.core.text import counted

T = TypeVar("T")
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
Box = tuple[int, int, int, int, int]
"""Index of a slice in the shard's volume, first and last row, first and last column; the last ones excluded."""


class Split(Section):
    """Shares of a site's subjects, or, for a site with one subject, of its slices."""

    by: Literal["subject", "block"] = Field(
        "subject",
        description="subject: no subject in two parts. block: contiguous slices of each volume, for a site with a "
        "single subject; every number from it is marked 'within subject'.",
    )
    train: float = Field(0.7, ge=0, le=1, description="Share for training.")
    val: float = Field(0.15, ge=0, le=1, description="Share for validation: selects the best round.")
    test: float = Field(0.15, ge=0, le=1, description="Share for test: what is reported.")
    train_subjects: int | None = Field(
        None, ge=1, description="Number of training subjects to use; default all. Validation and test are unchanged."
    )
    train_slices: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the training slices to use, drawn slice by slice from the seed; default all.",
    )
    gap: int = Field(1, ge=0, description="Slices left out between two blocks, so that neighbours are not in both.")

    @model_validator(mode="after")
    def _whole(self) -> "Split":
        if abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, they are {sum(self.shares):g}")
        if self.by == "block" and self.train_subjects is not None:
            raise ValueError("train_subjects: a site split by block has one subject; leave it out")
        return self

    @property
    def shares(self) -> tuple[float, float, float]:
        """(train, val, test)."""
        return self.train, self.val, self.test

    @property
    def without_test(self) -> "Split":
        """The shares of what is left where other subjects are test; all 0 if test had everything."""
        left = self.train + self.val
        shares = {"train": self.train / left, "val": self.val / left} if left else {"train": 0.0, "val": 0.0}
        return self.model_copy(update={**shares, "test": 0.0})


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Slices [start, stop) of one volume, and the part they belong to."""

    volume: str
    subject: str
    start: int
    """Index of its first slice in the volume."""
    stop: int
    """Index after its last slice."""
    part: Part
    contrast: str = ""
    """The volume's weighting or channel according to the source; empty if unknown."""
    phase: bool = True
    """Whether the volume's images have phase."""
    boxes: tuple[Box, ...] = ()
    """Boxes around findings in the volume."""
    lines: tuple[int, int] | None = None
    """First and end of the volume's phase-encoding lines that were measured; None: all."""


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """`total` items divided by `shares` (largest remainder), at least one for each non-zero share.

    Raises:
        InputError: there are fewer items than non-zero shares.
    """
    needed = sum(share > 0 for share in shares)
    if total < needed:
        raise InputError(f"{total} cannot be divided into {needed} parts of at least one")
    counts = [max(1, int(total * share)) if share else 0 for share in shares]
    while sum(counts) != total:
        missing = [total * share - count if share else -np.inf for share, count in zip(shares, counts, strict=True)]
        if sum(counts) < total:
            counts[int(np.argmax(missing))] += 1
        else:
            largest = [m if count > 1 else np.inf for m, count in zip(missing, counts, strict=True)]
            counts[int(np.argmin(largest))] -= 1
    return counts


def ordered(places: Mapping[str, str], seed: int, identity: str) -> list[str]:
    """Subjects in an order drawn from (seed, identity) and the text of each."""
    return sorted(places, key=lambda subject: (derive(seed, "split", identity, places[subject]), subject))


def part_of(subjects: Sequence[str], split: Split, site: str, told: str = "") -> dict[str, Part]:
    """The part of each subject, by its place in the given order; `told` begins what errors say of a remedy.

    Raises:
        InputError: there are too few subjects for the shares.
    """
    try:
        counts = apportion(len(subjects), split.shares)
    except InputError:
        raise InputError(
            f"site {site}: {counted(len(subjects), 'subject')} cannot fill {sum(s > 0 for s in split.shares)} parts by "
            f"subject{told or ';'} set shares to 0, or `split: {{by: block}}` for a site with a single subject"
        ) from None
    dealt = (part for part, count in zip(PARTS, counts, strict=True) for _ in range(count))
    return dict(zip(subjects, dealt, strict=True))


def pieces_of(
    volumes: Sequence[tuple[str, str, int]], parts: Mapping[str, Part], split: Split, site: str
) -> list[Piece]:
    """Pieces of the volumes (name, subject, slices) in their order; subjects beyond `split.train_subjects` have none.

    `parts` has the subjects in the drawn order.

    Raises:
        InputError: `split.train_subjects` is more than there are.
    """
    training = [subject for subject, part in parts.items() if part == "train"]
    wanted = len(training) if split.train_subjects is None else split.train_subjects
    if wanted > len(training):
        raise InputError(
            f"site {site}: split.train_subjects: {wanted} is more than its {len(training)} training subjects"
        )
    used = parts.keys() - training[wanted:]
    return [
        Piece(volume=name, subject=subject, start=0, stop=slices, part=parts[subject])
        for name, subject, slices in volumes
        if subject in used
    ]


def split_blocks(volumes: Sequence[tuple[str, str, int]], split: Split, site: str) -> list[Piece]:
    """Contiguous blocks of every volume (name, subject, slices), `split.gap` slices apart, in the order of PARTS.

    Raises:
        InputError: the site has several subjects, or a volume too few slices.
    """
    if len({subject for _, subject, _ in volumes}) > 1:
        raise InputError(f"site {site}: split by block is for a single subject; use `split: {{by: subject}}`")
    pieces = []
    for name, subject, slices in volumes:
        used = [(part, share) for part, share in zip(PARTS, split.shares, strict=True) if share]
        try:
            counts = apportion(slices - split.gap * (len(used) - 1), [share for _, share in used])
        except InputError:
            raise InputError(
                f"site {site}: {slices} slices of {name} are too few for {len(used)} blocks and gaps"
            ) from None
        start = 0
        for (part, _), count in zip(used, counts, strict=True):
            pieces.append(Piece(volume=name, subject=subject, start=start, stop=start + count, part=part))
            start += count + split.gap
    return pieces


def thinned(pieces: Sequence[Piece], share: float, rng: np.random.Generator) -> list[Piece]:
    """The pieces with a share of their training slices, at least one of all, as runs of neighbours.

    Args:
        pieces: Of a site.
        share: Above 0; the slices of a smaller one are among those of a larger one.
        rng: What slices are drawn with.
    """
    slices = sum(piece.stop - piece.start for piece in pieces if piece.part == "train")
    kept = np.zeros(slices, bool)
    kept[rng.permutation(slices)[: max(1, round(share * slices))]] = True
    found, before = [], 0
    for piece in pieces:
        if piece.part != "train":
            found.append(piece)
            continue
        own = kept[before : before + piece.stop - piece.start]
        before += len(own)
        edges = np.flatnonzero(np.diff(own, prepend=False, append=False)).reshape(-1, 2).tolist()
        found += [replace(piece, start=piece.start + first, stop=piece.start + end) for first, end in edges]
    return found


def deal(items: Sequence[T], hands: int) -> list[list[T]]:
    """`items` dealt round-robin into groups, so that their sizes differ by at most one."""
    return [list(items[hand::hands]) for hand in range(hands)]
