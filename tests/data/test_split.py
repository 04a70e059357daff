from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim.core.errors import InputError
from fedsim.data.split import Piece, Split, apportion, deal, ordered, part_of, pieces_of, split_blocks, thinned


def volumes(subjects: int, per_subject: int = 2, slices: int = 5) -> list[tuple[str, str, int]]:
    return [(f"s{s}v{v}", f"s{s}", slices) for s in range(subjects) for v in range(per_subject)]


def split_subjects(
    volumes: list[tuple[str, str, int]], split: Split, seed: int, identity: str, site: str
) -> list[Piece]:
    order = ordered({subject: subject for _, subject, _ in volumes}, seed, identity)
    return pieces_of(volumes, part_of(order, split, site), split, site)


@given(st.integers(3, 60), st.tuples(*[st.integers(0, 10)] * 3).filter(lambda t: t[0] > 0))
def test_every_share_gets_at_least_one_and_nothing_is_lost(total: int, parts: tuple[int, int, int]) -> None:
    shares = [part / sum(parts) for part in parts]
    counts = apportion(total, shares)
    assert sum(counts) == total
    for count, share in zip(counts, shares, strict=True):
        assert (count == 0) == (share == 0)
        assert abs(count - total * share) < 2 or count == 1


def test_no_subject_is_in_two_parts() -> None:
    pieces = split_subjects(volumes(10), Split(), 0, "path", "A")
    parts = {piece.subject: set() for piece in pieces}
    for piece in pieces:
        parts[piece.subject].add(piece.part)
    assert all(len(found) == 1 for found in parts.values())
    assert Counter(next(iter(found)) for found in parts.values()) == {"train": 7, "val": 2, "test": 1}


def test_a_split_follows_the_stream_alone() -> None:
    listed = volumes(10)
    one, again, other = (split_subjects(listed, Split(), s, "path", "A") for s in (0, 0, 1))
    shuffled = split_subjects(listed[::-1], Split(), 0, "path", "A")
    assert one == again == shuffled[::-1]
    assert one != other


def test_other_volumes_of_the_same_subjects_are_divided_alike() -> None:
    """With the same subjects at both sites always; with one missing, only where a share's size must change."""
    t1, t2 = volumes(10, per_subject=1), volumes(10, per_subject=2)
    one, other = ({p.subject: p.part for p in split_subjects(v, Split(), 0, "path", "A")} for v in (t1, t2))
    assert one == other
    fewer = {p.subject: p.part for p in split_subjects(t1[:-1], Split(), 0, "path", "A")}
    assert sum(fewer[subject] != one[subject] for subject in fewer) <= 2


def test_too_few_subjects() -> None:
    with pytest.raises(InputError, match=r"site Oslo: 2 subjects cannot fill 3 parts"):
        split_subjects(volumes(2), Split(), 0, "path", "Oslo")


@pytest.mark.parametrize("gap", [0, 1, 3])
def test_blocks_are_contiguous_and_apart(gap: int) -> None:
    split = Split(by="block", gap=gap, train=0.6, val=0.2, test=0.2)
    train, val, test = split_blocks([("v", "s", 20)], split, "A")
    assert (train.part, val.part, test.part) == ("train", "val", "test")
    assert (train.start, test.stop) == (0, 20)
    assert val.start - train.stop == test.start - val.stop == gap
    assert all(piece.stop > piece.start for piece in (train, val, test))


def test_blocks_are_for_single_subjects_with_enough_slices() -> None:
    split = Split(by="block", gap=2)
    with pytest.raises(InputError, match="for a single subject"):
        split_blocks(volumes(2), split, "A")
    with pytest.raises(InputError, match="6 slices of v are too few"):
        split_blocks([("v", "s", 6)], split, "A")


def test_shares_make_a_whole() -> None:
    with pytest.raises(ValidationError, match=r"must be 1, they are 0\.9"):
        Split(train=0.6)
    with pytest.raises(ValidationError, match="split by block has one subject"):
        Split(by="block", train_subjects=1)


def test_fewer_training_subjects_leave_validation_and_test_as_they_are() -> None:
    volumes = [(f"v{i}", f"s{i}", 3) for i in range(10)]
    every = split_subjects(volumes, Split(), 1, "here", "A")
    few = split_subjects(volumes, Split(train_subjects=2), 1, "here", "A")
    assert [p for p in few if p.part != "train"] == [p for p in every if p.part != "train"]
    kept = [p for p in few if p.part == "train"]
    assert len(kept) == 2
    assert set(kept) < set(every)


@given(st.floats(0.01, 1), st.integers(0, 99))
def test_a_share_of_the_training_slices(share: float, seed: int) -> None:
    pieces = split_subjects(volumes(10, slices=7), Split(), 1, "here", "A")
    found = thinned(pieces, share, np.random.default_rng(seed))
    assert [p for p in found if p.part != "train"] == [p for p in pieces if p.part != "train"]
    every, kept = (slices_of(one) for one in (pieces, found))
    assert len(kept) == max(1, round(share * len(every)))
    assert set(kept) <= set(every)
    assert len(set(kept)) == len(kept)
    more = slices_of(thinned(pieces, min(1, 2 * share), np.random.default_rng(seed)))
    assert set(kept) <= set(more), "a larger share only adds"
    assert slices_of(thinned(pieces, 1, np.random.default_rng(seed))) == every


def slices_of(pieces: list[Piece]) -> list[tuple[str, int]]:
    """Volume and index of each training slice, in the order of the pieces."""
    return [(p.volume, index) for p in pieces if p.part == "train" for index in range(p.start, p.stop)]


@given(st.integers(1, 50), st.integers(1, 10))
def test_dealing(items: int, hands: int) -> None:
    cards = [str(i) for i in range(items)]
    dealt = deal(cards, hands)
    assert sorted(card for hand in dealt for card in hand) == sorted(cards)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
