"""No person is ever in two splits, whatever the layout and whoever shares sites, or the workload is refused."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.core.errors import InputError
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.formats.nifti import Nifti
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.sharing import SiteVolumes, divide, people, shared_people, subject_lines
from fedsim.data.source import Source, StoredVolume
from fedsim.data.split import Split
from fedsim.data.subjects import SITE, Subject

HALVES = Split(train=0.5, val=0.25, test=0.25)


def site(name: str, subjects: list[str], source: Source | None = None, split: Split = HALVES) -> SiteVolumes:
    volumes = [
        StoredVolume(name=s, who=Subject.of(s, "BIDS sub-"), origin=f"{name}/{s}", slices=(0,), support=(8, 8))
        for s in subjects
    ]
    return SiteVolumes(site=name, source=source or Nifti(path=name), split=split, volumes=volumes)


def divided(*sites: SiteVolumes, seed: int = 0) -> dict[str, dict[str, str]]:
    return divide(sites, people(sites, Path("nowhere")), seed)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.sampled_from("abcdefghijkl"), min_size=3), min_size=1, max_size=4), st.integers(0, 5))
def test_sites_that_overlap_keep_everybody_in_one_part_and_no_share_empty(members: list[set[str]], seed: int) -> None:
    sites = [site(f"S{number}", sorted(some)) for number, some in enumerate(members)]
    try:
        parts = divided(*sites, seed=seed)
    except InputError:
        return
    for subject in "abcdefghijkl":
        assert len({own[subject] for own in parts.values() if subject in own}) <= 1
    for one in sites:
        assert set(parts[one.site].values()) == {"train", "val", "test"}
    assert divided(*sites[::-1], seed=seed) == parts, "the order of sites does not matter"


def test_equal_sites_are_divided_alike_and_close_to_their_shares() -> None:
    names = [f"sub-{i:02d}" for i in range(20)]
    a, b = divided(site("A", names), site("B", names[:12])).values()
    assert all(a[name] == b[name] for name in b)
    for parts in (a, b):
        counts = [list(parts.values()).count(part) / len(parts) for part in ("train", "val", "test")]
        assert all(abs(count - share) < 0.1 for count, share in zip(counts, HALVES.shares, strict=True))


def test_what_cannot_be_divided_alike_is_refused() -> None:
    names = ["a", "b", "c"]
    other = Split(train=0, val=0.5, test=0.5)
    with pytest.raises(InputError, match=r"sites A and B: read the same people .* give the sites the same split"):
        divided(site("A", names), site("B", names, split=other))


@pytest.mark.parametrize(
    ("volumes", "there", "keys"),
    [
        (1, "1 volume", "`subject: {pattern: ...}`"),
        (2, "2 volumes", "`subject: file` or `subject: {pattern: ...}`"),
    ],
)
def test_files_are_offered_as_subjects_only_where_they_are_volumes(volumes: int, there: str, keys: str) -> None:
    """The slices of one volume, in a folder of its own, are no people."""
    whole = [
        StoredVolume(name=f"v{i}", who=Subject("site", SITE, "A"), origin="A", slices=(0, 1), support=(8, 8))
        for i in range(volumes)
    ]
    with pytest.raises(InputError) as refused:
        divided(SiteVolumes(site="A", source=Nifti(path="A"), split=HALVES, volumes=whole))
    told = f"({there}, identified by {SITE}): if they show more people, set {keys}; or set"
    assert told in str(refused.value)


def test_an_unseen_site_of_few_subjects_is_told_to_test_on_all() -> None:
    split = r"for an unseen site set `split: \{train: 0, val: 0, test: 1\}`, or set shares to 0"
    with pytest.raises(InputError, match=rf"^site A: 1 subject cannot fill 3 parts by subject; {split}"):
        divided(replace(site("A", ["sub-1"]), unseen=True))
    with pytest.raises(InputError, match=r"by subject; set shares to 0"):
        divided(site("A", ["sub-1"]))
    assert divided(replace(site("A", ["sub-1"], split=Split(train=0, val=0, test=1)), unseen=True)) == {
        "A": {"sub-1": "test"}
    }


def test_phantoms_of_other_seeds_and_whole_sites_are_other_people() -> None:
    names = [f"subject-{i}" for i in range(6)]
    drawn = [site(name, names, PhantomSource(seed=seed)) for name, seed in (("A", 1), ("B", 2), ("C", 1))]
    who = people(drawn, Path("nowhere"))
    assert {tuple(where) for where in shared_people(drawn, who).values()} == {("A", "C")}


def test_the_whole_of_two_sites_is_two_people(tmp_path: Path) -> None:
    sites = []
    for path in ("A", "B"):
        (tmp_path / path).mkdir()
        (tmp_path / path / "v.nii").write_text("one")
        source = Nifti(path=path, subject="site")
        who = source.who(tmp_path / path / "v.nii", tmp_path)
        sites.append(
            SiteVolumes(
                site=path,
                source=source,
                split=HALVES,
                volumes=[StoredVolume(name="v", who=who, origin=f"{path}/v.nii", slices=(0,), support=(8, 8))],
            )
        )
    assert not shared_people(sites, people(sites, tmp_path))


def test_who_is_at_several_sites_is_said() -> None:
    sites = [site("A", ["a", "b"]), site("B", ["b", "c"])]
    shared = shared_people(sites, people(sites, Path("nowhere")))
    assert subject_lines({"BIDS sub-": 4}, shared) == [
        "subjects: 4 identified by BIDS sub-",
        "at several sites (A, B), divided alike: 1 x subject: b",
    ]


LAYOUTS = (
    "{who}/ses-{t}/anat/{who}_ses-{t}_T1w",
    "ses-{t}/{who}_T1w",
    "{who}/Timepoint_{t}/t1",
    "Timepoint_{t}/{who}/t1",
    "{who}_visit{t}/t1",
    "{who}_T1_rep{t}",
)
NOISE = ("derivatives/x/{who}/{who}_T1w", ".cache/{who}_{t}", "{who}/{who}_seg", "masks/{who}")


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LAYOUTS), st.sets(st.integers(0, 9), min_size=3)), min_size=1, max_size=3),
    st.sets(st.sampled_from(NOISE)),
    st.sampled_from(["sub-0{}", "patient{}", "subject-{}"]),
    st.booleans(),
)
def test_nobody_is_in_two_splits_in_any_layout(
    sites: list[tuple[str, set[int]]], noise: set[str], naming: str, linked: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        read: list[SiteVolumes] = []
        truth: dict[tuple[str, str], set[int]] = {}
        for number, (layout, members) in enumerate(sites):
            for person in members:
                for text, at in [*((layout, t) for t in (1, 2)), *((text, 1) for text in noise)]:
                    path = root / f"S{number}" / (text.format(who=naming.format(person), t=at) + ".h5")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(f"{person}")
            if linked and number:
                (root / f"S{number}/link").symlink_to("../S0")
            source = FastMRI(path=f"S{number}")
            files = source.files(root)
            assert not any(part in str(file) for file in files for part in ("derivatives", ".cache", "masks", "_seg"))
            volumes = []
            for file in files:
                who = source.who(file, root)
                volumes.append(
                    StoredVolume(
                        name=file.stem, who=who, origin=file.relative_to(root).as_posix(), slices=(0,), support=(8, 8)
                    )
                )
                truth.setdefault((f"S{number}", who.name), set()).add(int(file.read_text()))
            read.append(SiteVolumes(site=f"S{number}", source=source, split=HALVES, volumes=volumes))
        try:
            parts = divide(read, people(read, root), 1)
        except InputError:
            return
        where: dict[int, set[str]] = {}
        for (name, subject), persons in truth.items():
            for person in persons:
                where.setdefault(person, set()).add(parts[name][subject])
        assert all(len(found) == 1 for found in where.values())
