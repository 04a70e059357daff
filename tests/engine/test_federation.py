from collections.abc import Callable

import pandas as pd
import pytest

from fedsim.core.errors import InputError
from fedsim.engine.federation import assemble, check_leaks
from fedsim.workload.schema import Workload
from tests.conftest import site

Make = Callable[..., Workload]


def test_fewer_clients_than_sites_are_refused(workload: Make) -> None:
    with pytest.raises(InputError, match=r"federation\.clients: 2 is fewer than the 3 sites"):
        assemble(workload("federation.clients=2"))


def test_training_subjects_are_dealt_and_the_rest_belongs_to_the_site(workload: Make) -> None:
    federation = assemble(workload())
    assert federation.names == ("A.1", "A.2", "B", "C")
    one, two = (client.data for client in federation.clients[:2])
    own, other = ({p.subject for p in data.pieces if p.part == "train"} for data in (one, two))
    assert own
    assert other
    assert not own & other
    for part in ("val", "test"):
        assert [p for p in one.pieces if p.part == part] == [p for p in two.pieces if p.part == part] != []


def test_a_share_of_the_training_slices_leaves_validation_and_test(workload: Make) -> None:
    every, half = (assemble(workload(*keys)).manifest for keys in ((), ("federation.split.train_slices=0.5",)))
    for where, own in every[every["split"] == "train"].groupby("site"):
        kept = half[(half["split"] == "train") & (half["site"] == where)]
        assert len(kept) == round(len(own) / 2)
        assert set(zip(kept["volume"], kept["slice"], strict=True)) < set(zip(own["volume"], own["slice"], strict=True))
    rest, same = (one[one["split"] != "train"].reset_index(drop=True) for one in (every, half))
    pd.testing.assert_frame_equal(rest, same)


def test_too_many_clients_says_how_many_fit(workload: Make) -> None:
    with pytest.raises(InputError, match="site A has 4 training subjects, so it can become 4 clients at most, not 5"):
        assemble(workload("federation.clients=13"))


def test_a_site_may_differ_in_matrix_and_training(workload: Make) -> None:
    a, _, b, _ = assemble(workload()).clients
    assert (a.data.matrix, b.data.matrix) == ((32, 32), (48, 48))
    assert (a.training.lr, b.training.lr) == (1e-3, 2e-3)


def test_the_manifest_has_every_slice_once(workload: Make) -> None:
    manifest = assemble(workload()).manifest
    assert len(manifest) == 3 * 6 * 3
    assert not manifest.duplicated(["site", "volume", "slice"]).any()
    assert set(manifest["mask_kind"]) == {"equispaced", "radial", "gaussian2d"}
    assert manifest.loc[manifest["split"] == "train", "client"].notna().all()
    assert manifest.loc[manifest["split"] != "train", "client"].isna().all()
    assert manifest["acceleration"].between(2, 3.5).all()
    assert not manifest["within_subject"].any()


def test_a_split_by_block_is_stamped(workload: Make) -> None:
    split = "{by: block, gap: 1, train: 0.6, val: 0.2, test: 0.2}"
    single = "{format: phantom, subjects: 1, slices: 12, size: 48}"
    load = workload(
        "federation.clients=null", f"federation.sites.0.split={split}", f"federation.sites.0.source={single}"
    )
    manifest = assemble(load).manifest
    assert set(manifest.loc[manifest["within_subject"], "site"]) == {"A"}
    assert sorted(manifest.loc[manifest["site"] == "A", "split"].unique()) == ["test", "train", "val"]


def test_sites_do_not_depend_on_their_place_in_the_file(workload: Make) -> None:
    load = workload("federation.clients=null")
    sites = load.federation.sites
    turned = load.model_copy(update={"federation": load.federation.model_copy(update={"sites": sites[::-1]})})
    one, other = ({c.name: c for c in assemble(w).clients} for w in (load, turned))
    assert one == other


def test_count_makes_different_sites_with_drawn_fields(workload: Make) -> None:
    many = site("P", "t1", "radial", count=3)
    many["source"] |= {"field_t": [0.5, 3.0], "subjects": 3, "slices": 2}
    load = workload("federation.clients=null", f"federation.sites=[{many}]")
    federation = assemble(load)
    assert federation.names == ("P-001", "P-002", "P-003")
    assert len({client.data.shard for client in federation.clients}) == 3
    assert not any(client.data.shard.exists() for client in federation.clients), "made where they are first read"


def rows(*entries: tuple[str, str, str], within: bool = False) -> pd.DataFrame:
    frame = pd.DataFrame(entries, columns=["site", "subject", "split"])
    return frame.assign(within_subject=within, person=frame["subject"])


def test_leaks_are_refused() -> None:
    check_leaks(rows(("A", "s1", "train"), ("A", "s2", "test"), ("B", "s1", "train")))
    check_leaks(rows(("A", "s1", "train"), ("A", "s1", "test"), within=True))
    with pytest.raises(InputError, match="site A: subject s1 is in train and in test"):
        check_leaks(rows(("A", "s1", "train"), ("A", "s1", "test")))
    with pytest.raises(InputError, match="site A and B: subject s1 is in train and in val"):
        check_leaks(rows(("A", "s1", "train"), ("B", "s1", "val")))
    with pytest.raises(InputError, match="site A and B: subject s1 is in train and in test"):
        check_leaks(rows(("A", "s1", "train"), ("B", "s1", "test"), within=True))


def test_two_sites_may_share_their_subjects(workload: Make) -> None:
    """The same seed, another contrast: the split is the same, so nothing leaks."""
    sites = [site(name, contrast, "radial") for name, contrast in (("A", "t1"), ("B", "t2"))]
    for one in sites:
        one["source"]["seed"] = 5
    federation = assemble(workload("federation.clients=null", f"federation.sites={sites}"))
    a, b = ({p.subject: p.part for p in client.data.pieces} for client in federation.clients)
    assert a == b


def test_pooled_data_are_one_clients(workload: Make) -> None:
    federation = assemble(workload("algorithm.name=centralised"))
    (client,) = federation.clients
    assert (client.name, client.site, client.training.lr) == ("all", "all", 1e-3)
    assert [member.site for member in client.data.members] == ["A", "B", "C"]
    manifest = federation.manifest
    assert set(manifest.loc[manifest["split"] == "train", "client"]) == {"all"}
    assert client.data.samples() == (manifest["split"] == "train").sum()
    one, other = (
        frame.drop(columns="client").sort_values(["site", "volume", "slice"], ignore_index=True)
        for frame in (manifest, assemble(workload()).manifest)
    )
    pd.testing.assert_frame_equal(one, other)


def test_an_unseen_site_takes_no_part(workload: Make) -> None:
    federation = assemble(workload("federation.clients=null", "federation.sites.1.unseen=true"))
    assert federation.names == ("A", "C")
    (unseen,) = federation.unseen
    assert unseen.name == "B"
    assert unseen.data.samples("train")
    assert unseen.data.samples("test")
    rows = federation.manifest[federation.manifest["site"] == "B"]
    assert set(rows["split"]) == {"train", "val", "test"}
    assert rows["client"].isna().all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"federation.sites.{i}.unseen=true" for i in range(3)], "all are unseen"),
        (["federation.split={train: 0, val: 0.5, test: 0.5}"], "site A has nothing to train on"),
    ],
)
def test_somebody_has_to_train(workload: Make, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        workload(*overrides)
