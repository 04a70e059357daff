"""Folds: every subject is test exactly once, and in the same fold for every seed."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim.core.errors import InputError
from fedsim.data.folds import Folds, dealt
from fedsim.data.formats.nifti import Nifti
from fedsim.data.sharing import SiteVolumes, divide, people
from fedsim.data.source import StoredVolume
from fedsim.data.split import Split
from fedsim.data.subjects import Subject
from fedsim.workload.sites import Federation

Parts = dict[str, dict[str, str]]


def site(name: str, subjects: list[str], **shares: object) -> SiteVolumes:
    volumes = [
        StoredVolume(name=s, who=Subject.of(s, "BIDS sub-"), origin=f"{name}/{s}", slices=(0,), support=(8, 8))
        for s in subjects
    ]
    split = Split(**(shares or {"train": 0.7, "val": 0.15, "test": 0.15}))  # type: ignore[arg-type]
    return SiteVolumes(site=name, source=Nifti(path=name), split=split, volumes=volumes)


def every_fold(*sites: SiteVolumes, count: int, seed: int = 0) -> list[Parts]:
    who = people(sites, Path("nowhere"))
    folds = [Folds(count=count, test=number, seed=7) for number in range(1, count + 1)]
    return [divide(sites, who, seed, fold) for fold in folds]  # type: ignore[misc]


def in_test(parts: Parts, name: str) -> set[str]:
    return {subject for subject, part in parts[name].items() if part == "test"}


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 24), st.integers(2, 8), st.integers(0, 3))
def test_every_subject_is_tested_exactly_once(subjects: int, count: int, seed: int) -> None:
    """And is in one part of every other fold, of which training and validation get some each."""
    hospital = site("A", [f"s{n}" for n in range(subjects)])
    if subjects < count or subjects - -(-subjects // count) < 2:
        with pytest.raises(InputError, match="site A: "):
            every_fold(hospital, count=count, seed=seed)
        return
    folds = every_fold(hospital, count=count, seed=seed)
    assert Counter(subject for parts in folds for subject in in_test(parts, "A")) == Counter(list(hospital.subjects))
    sizes = [len(in_test(parts, "A")) for parts in folds]
    assert max(sizes) - min(sizes) <= 1
    assert all(parts["A"].keys() == hospital.subjects.keys() for parts in folds)
    assert all(set(parts["A"].values()) == {"train", "val", "test"} for parts in folds)


def test_hospitals_of_seven_to_ten_subjects_have_five_folds() -> None:
    hospitals = [site(name, [f"{name}{n}" for n in range(count)]) for name, count in (("CS", 10), ("DU", 7), ("HT", 9))]
    folds = every_fold(*hospitals, count=5)
    for one in hospitals:
        assert Counter(s for parts in folds for s in in_test(parts, one.site)) == Counter(list(one.subjects))
    assert Counter(folds[0]["DU"].values()) == {"train": 4, "val": 1, "test": 2}


def test_a_fold_tests_the_same_subjects_for_every_seed_and_divides_the_rest_anew() -> None:
    hospital = site("A", [f"s{n}" for n in range(10)])
    by_seed = [every_fold(hospital, count=5, seed=seed) for seed in range(6)]
    for number in range(5):
        assert len({frozenset(in_test(folds[number], "A")) for folds in by_seed}) == 1
    inner = {frozenset(s for s, part in folds[0]["A"].items() if part == "val") for folds in by_seed}
    assert len(inner) > 1
    in_folds = {frozenset(s for s, part in parts["A"].items() if part == "val") for parts in by_seed[0]}
    assert len(in_folds) > 1, "each fold draws its own validation subjects"


def test_without_folds_nothing_changes() -> None:
    """The division of a seed that was published once must stay."""
    hospital = site("A", [f"s{n}" for n in range(10)])
    who = people([hospital], Path("nowhere"))
    parts = divide([hospital], who, 3)["A"]
    assert in_test({"A": parts}, "A") == {"s7"}
    assert {s for s, part in parts.items() if part == "val"} == {"s1", "s3"}


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.lists(st.sets(st.sampled_from("abcdefghijklmnop"), min_size=8), min_size=2, max_size=3), st.integers(2, 4))
def test_people_at_several_sites_are_tested_at_all_of_them_in_one_fold(members: list[set[str]], count: int) -> None:
    sites = [site(f"S{number}", sorted(some)) for number, some in enumerate(members)]
    try:
        folds = every_fold(*sites, count=count)
    except InputError:
        return
    for parts in folds:
        for subject in "abcdefghijklmnop":
            assert len({own[subject] for own in parts.values() if subject in own}) <= 1
    for one in sites:
        assert Counter(s for parts in folds for s in in_test(parts, one.site)) == Counter(list(one.subjects))


def test_dealing_evens_out_sites_that_share_some_people() -> None:
    """Three at both, then three at each alone: with five folds neither site has an empty one."""
    sites_of = {**dict.fromkeys("abc", ("A", "B")), **dict.fromkeys("def", ("A",)), **dict.fromkeys("ghi", ("B",))}
    folds = dealt(list("ihgfedcba"), sites_of, 5)
    for name in "AB":
        assert sorted(Counter(folds[p] for p, where in sites_of.items() if name in where).values()) == [1, 1, 1, 1, 2]


def test_a_site_that_only_trains_keeps_its_split_and_an_unseen_one_is_tested_once() -> None:
    heart, elsewhere = (
        site("heart", [f"h{n}" for n in range(4)], train=1, val=0, test=0),
        site("elsewhere", [f"e{n}" for n in range(6)], train=0, val=0, test=1),
    )
    folds = every_fold(heart, elsewhere, count=3)
    assert all(set(parts["heart"].values()) == {"train"} and len(parts["heart"]) == 4 for parts in folds)
    assert Counter(s for parts in folds for s in parts["elsewhere"]) == Counter(list(elsewhere.subjects))


@pytest.mark.parametrize(
    ("hospital", "count", "message"),
    [
        (site("Oslo", ["a", "b", "c"]), 4, "site Oslo: 3 subjects cannot fill 4 folds; at most 3, or test share 0"),
        (site("Oslo", ["a", "b"]), 2, "site Oslo: 2 folds of 2 subjects leave 1 for 2 parts (training, validation)"),
        (
            site("Knee", ["a"], by="block", train=0.5, val=0.25, test=0.25),
            2,
            "site Knee: has one subject",
        ),
    ],
)
def test_too_few_subjects_get_one_line_that_names_the_site(hospital: SiteVolumes, count: int, message: str) -> None:
    with pytest.raises(InputError) as raised:
        every_fold(site("A", [f"s{n}" for n in range(9)]), hospital, count=count)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_fold_is_one_of_them() -> None:
    with pytest.raises(ValidationError, match="4 is not one of 3 folds"):
        Folds(count=3, test=4)
    phantom = {"name": "A", "source": {"format": "phantom"}}
    assert Federation.model_validate({"sites": [phantom], "folds": {"count": 3}}).folds == Folds(count=3)
