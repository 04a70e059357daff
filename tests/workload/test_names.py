"""Sites and clients by place and by name, against the lists that they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from fedsim.workload.names import ClientNames, Sites, site_name


@dataclass(frozen=True)
class Entry:
    name: str
    count: int = 1

    def numbered(self, number: int) -> "Entry":
        return replace(self, name=site_name(self, number), count=1)


ENTRIES = (Entry("A"), Entry("P", 3), Entry("P-7"), Entry("Q", 2))
NAMES = ["A", "P-001", "P-002", "P-003", "P-7", "Q-001", "Q-002"]


def test_sites_are_those_of_their_entries_in_order() -> None:
    sites = Sites(ENTRIES)
    assert [site.name for site in sites] == NAMES
    assert [sites.place(name) for name in NAMES] == list(range(7))
    assert [site.name for site in sites[1:3]] == NAMES[1:3]
    assert sites[-1].name == "Q-002"
    with pytest.raises(IndexError):
        sites[7]


@pytest.mark.parametrize("name", ["", "P", "P-000", "P-004", "P-01", "P-0001", "P-٠٠١", "P--01", "Q-003", "A-001", "-"])
def test_no_other_name_has_a_place(name: str) -> None:
    assert Sites(ENTRIES).place(name) is None
    assert name not in ClientNames(Sites(ENTRIES), None)


def test_a_site_may_have_the_name_that_a_number_before_the_first_would_make() -> None:
    assert Sites((Entry("P", 3), Entry("P-000"))).place("P-000") == 3


@pytest.mark.parametrize(
    ("clients", "names"),
    [
        (None, NAMES),
        (7, NAMES),
        (9, ["A.1", "A.2", "P-001.1", "P-001.2", *NAMES[2:]]),
        (14, [f"{name}.{number}" for name in NAMES for number in (1, 2)]),
    ],
)
def test_clients_are_shared_out_among_sites(clients: int | None, names: Sequence[str]) -> None:
    found = ClientNames(Sites(ENTRIES), clients)
    assert list(found) == list(names)
    assert [found.place(name) for name in names] == list(range(len(names)))
    assert all(name in found for name in names)
    assert [found.site(place) for place in range(len(names))] == [NAMES.index(name.partition(".")[0]) for name in names]
    assert not {"A.0", "A.3", "A.", "A.01", "Q-002.x"} & set(found)
    assert not any(name in found for name in ("A.0", "A.3", "A.", "A.01", "Q-002.x", "Q-002.3", "A." + "1" * 5000))


def test_ten_million_cost_nothing() -> None:
    names = ClientNames(Sites([Entry("A"), Entry("P", 10_000_000)]), 15_000_000)
    assert (len(names), names[0], names[-1], names.place(names[12_345_678])) == (
        15_000_000, "A.1", "P-10000000", 12_345_678,
    )  # fmt: skip
