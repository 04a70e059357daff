"""A site's training data among its clients: whole units, nobody left out, even or skewed as alpha says."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.core.errors import InputError
from fedsim.core.seeds import numpy_stream
from fedsim.data.partition import Dirichlet, Equal, Partition, Quantity
from fedsim.data.split import Piece
from fedsim.engine.federation import Federation, assemble
from fedsim.workload.schema import Workload

CONTRASTS = ("flair", "t1", "t2")


def pieces(subjects: dict[str, dict[str, int]]) -> list[Piece]:
    """A training piece for each subject and contrast, with so many slices."""
    return [
        Piece(volume=f"{subject}_{contrast}", subject=subject, start=0, stop=slices, part="train", contrast=contrast)
        for subject, volumes in subjects.items()
        for contrast, slices in volumes.items()
    ]


def sites(count: int, contrasts: tuple[str, ...] = CONTRASTS) -> list[Piece]:
    return pieces({f"s{index}": dict.fromkeys(contrasts, 3) for index in range(count)})


def dealt(partition: Partition, train: list[Piece], clients: int, seed: int = 1) -> list[list[Piece]]:
    hands = partition.hands(train, clients, numpy_stream(seed, "partition", "A"), "A")
    return [[piece for piece in train if piece.volume in hand] for hand in hands]


alphas = st.floats(1e-3, 1e6)
partitions = st.one_of(
    st.just(Equal()),
    st.builds(Quantity, kind=st.just("quantity"), alpha=alphas),
    st.builds(Dirichlet, kind=st.just("dirichlet"), alpha=alphas, by=st.sampled_from(["subject", "contrast"])),
)
people = st.dictionaries(
    st.text("abc", min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(CONTRASTS), st.integers(1, 30), min_size=1),
    min_size=1, max_size=12,
)  # fmt: skip


@given(partition=partitions, subjects=people, clients=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_every_volume_is_at_one_client_and_no_client_without(
    partition: Partition, subjects: dict[str, dict[str, int]], clients: int, seed: int
) -> None:
    train = pieces(subjects)
    try:
        hands = dealt(partition, train, clients, seed)
    except InputError as error:
        assert str(error).startswith("federation.")  # noqa: PT017 - only the message is known to be refused
        return
    assert len(hands) == clients
    assert all(hands)
    assert Counter(piece.volume for hand in hands for piece in hand) == Counter(piece.volume for piece in train)
    if not (isinstance(partition, Dirichlet) and partition.by == "contrast"):
        owners = Counter(subject for hand in hands for subject in {piece.subject for piece in hand})
        assert set(owners.values()) == {1}, "a subject is at one client"
    assert hands == dealt(partition, train, clients, seed), "the same for the same seed"


def sizes(partition: Partition, train: list[Piece], clients: int) -> np.ndarray:
    """Slices of each client, over many seeds, smallest first (seeds, clients)."""
    each = [
        sorted(sum(p.stop - p.start for p in hand) for hand in dealt(partition, train, clients, s)) for s in range(40)
    ]
    return np.array(each)


@pytest.mark.parametrize("partition", [Quantity(kind="quantity"), Dirichlet(kind="dirichlet")], ids=lambda p: p.kind)
def test_small_alpha_skews_and_large_alpha_evens_out(partition: Partition) -> None:
    even, strong = (
        sizes(partition.model_copy(update={"alpha": alpha}), sites(60, ("t1",)), 6) for alpha in (1e6, 0.05)
    )
    assert (even == 30).all(), "60 subjects of 3 slices at 6 clients"
    assert (strong.sum(axis=1) == 180).all()
    assert np.median(strong[:, -1]) > 100, "most of it at one client"


def test_the_drawn_shares_are_those_of_the_dirichlet_distribution() -> None:
    """NumPy is the reference: the mean of the largest share of Dir(0.5 * 1_4), to what whole subjects allow."""
    ours = sizes(Dirichlet(kind="dirichlet", alpha=0.5), sites(400, ("t1",)), 4)[:, -1].mean() / 1200
    drawn = np.sort(np.random.default_rng(0).dirichlet([0.5] * 4, size=40_000), axis=1)[:, -1].mean()
    assert abs(ours - drawn) < 0.1


def test_by_contrast_each_contrast_has_its_own_shares() -> None:
    strong = Dirichlet(kind="dirichlet", alpha=0.05, by="contrast")
    mixes = [Counter(piece.contrast for piece in hand) for hand in dealt(strong, sites(30), 3)]
    most = [max(mix[contrast] for mix in mixes) for contrast in CONTRASTS]
    assert min(most) >= 20, "of each contrast's 30 volumes, most are at one client"
    even = Dirichlet(kind="dirichlet", alpha=1e6, by="contrast")
    assert all(
        Counter(piece.contrast for piece in hand) == dict.fromkeys(CONTRASTS, 10) for hand in dealt(even, sites(30), 3)
    )


def test_quantity_counts_slices_where_subjects_differ() -> None:
    train = pieces({f"s{index}": {"t1": 1 + 9 * (index < 4)} for index in range(44)})  # 4 with 10 slices, 40 with one
    hands = dealt(Quantity(kind="quantity", alpha=1e6), train, 4)
    assert [sum(piece.stop for piece in hand) for hand in hands] == [20] * 4


def test_equal_is_what_it_was() -> None:
    subjects = [sorted({p.subject for p in hand}) for hand in dealt(Equal(), sites(5), 2)]
    assert subjects == [["s0", "s2", "s4"], ["s1", "s3"]]


KEYS = ("federation.clients=6", "federation.sites.2.unseen=true", "federation.split={train: 0.8, val: 0.1, test: 0.1}",
        "federation.sites.0.source.subjects=10", "federation.sites.0.source.contrast=[t1, t2]",
        "federation.sites.1.source.subjects=10", "federation.sites.1.source.contrast=[t1, t2]",
        "federation.sites.1.split=null")  # fmt: skip


@pytest.mark.parametrize("kind", ["{kind: quantity, alpha: 0.1}", "{kind: dirichlet, alpha: 0.1, by: contrast}"])
def test_in_a_federation_nobody_is_in_two_splits_and_the_seed_decides(
    make_workload: Callable[..., Workload], kind: str
) -> None:
    def at(*keys: str) -> Federation:
        return assemble(make_workload(*KEYS, f"federation.partition={kind}", *keys))

    manifest = at().manifest
    assert manifest[~manifest["within_subject"]].groupby(["site", "subject"])["split"].nunique().max() == 1
    train = manifest[manifest["split"] == "train"]
    assert train["client"].nunique() == 6
    assert not train.duplicated(["site", "volume", "slice"]).any()
    even = at("federation.partition={kind: equal}").manifest
    keys = ["site", "volume", "slice", "split"]
    assert sorted(map(tuple, manifest[keys].to_numpy())) == sorted(map(tuple, even[keys].to_numpy()))
    assert manifest.equals(at().manifest)
    other = at("seed=6").manifest.query("split == 'train'")
    assert dict(train.groupby("client").size()) != dict(other.groupby("client").size())


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("federation.partition={kind: dirichlet, alpha: 0}", "federation.partition.alpha: .*0.001, got 0"),
        ("federation.partition={kind: quantity, alpha: .inf}", "federation.partition.alpha"),
        ("federation.partition={kind: dirichlet, by: site}", "federation.partition.by"),
        ("federation.partition={kind: pathological}", "federation.partition.kind: unknown 'pathological'"),
        ("federation.partition={kind: quantity}", None),
        ("federation.clients=null", "set federation.clients above the number of sites"),
        ("federation.clients=60", "has 8 training subjects, so it can become 8 clients at most, not 30"),
        ("federation.sites.1.source.contrast=t1", r"site B has one contrast \(t1\); divide it by subject"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    make_workload: Callable[..., Workload], key: str, message: str | None
) -> None:
    by = "contrast" if "contrast" in key else "subject"
    keys = (*KEYS, f"federation.partition={{kind: dirichlet, by: {by}}}", key)
    if message is None:
        assert len(assemble(make_workload(*keys)).clients) == 6
        return
    with pytest.raises(InputError, match=message):
        assemble(make_workload(*keys))
