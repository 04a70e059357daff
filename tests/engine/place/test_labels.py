"""Clients that ask for labels train on nodes that carry them, however actors are shared and nodes chosen."""

import re
from typing import Any

import pytest

from fedsim.cli.plan_tables import plan_tables
from fedsim.core.errors import InputError
from fedsim.engine.federation import assemble
from fedsim.engine.place.labels import kinds_text, selects
from fedsim.engine.place.node import Node
from fedsim.engine.place.placement import Placement, granted, placed, unplaced, usable
from fedsim.engine.plan.fits import refuse
from fedsim.workload.engine import Engine
from fedsim.workload.resources import Resources
from tests.engine.plans import TINY, MakeWorkload, checked, machine, node, planned

RAY, AUTO = "engine.backend=ray", "engine.clients_per_actor=auto"
H100, A100 = {"accelerator": "H100"}, {"accelerator": "A100"}
NODES = [node("head"), node("one", labels=H100), node("two", labels=H100), node("three", labels=A100)]


def on(site: int, asked: str) -> str:
    return f"federation.sites.{site}.resources.labels={{accelerator: {asked}}}"


def where(placements: list[Placement], nodes: list[Node]) -> dict[str, str]:
    """The node that each client is placed on."""
    return {client.name: nodes[one.node].name for one in placements for client in one.clients}


@pytest.mark.parametrize(
    ("selector", "takes"),
    [("H100", {"H100"}), ("!H100", {"A100", "", None}), ("in(H100,A100)", {"H100", "A100"}),
     ("!in(H100,A100)", {"", None}), ("!in(H100)", {"A100", "", None})],
)  # fmt: skip
def test_a_selector_takes_what_ray_takes(selector: str, takes: set[str | None]) -> None:
    """As in Ray's scheduler: `!` also takes a node without the label."""
    assert {label for label in ("H100", "A100", "", None) if selects(selector, label)} == takes


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"accelerator": "H100!"}, "'H100!' selects no labels; write H100"),
        ({"accelerator": "in()"}, "'in()' selects no labels"),
        ({"accelerator": "(H100)"}, "'(H100)' selects no labels"),
        ({"accelerator": ""}, "'' selects no labels"),
        ({"accelerator": "a" * 64}, "selects no labels"),
        ({"accelerator": 100}, "must be text, and YAML takes this for the number 100"),
        ({"-x": "a"}, "'-x' is not the key of a label"),
        ({"a..b/x": "a"}, "'a..b/x' is not the key of a label"),
        ({"x/": "a"}, "'x/' is not the key of a label"),
        ({}, "at least 1 item"),
    ],
)
def test_labels_are_in_the_syntax_of_ray(workload: MakeWorkload, labels: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=rf"resources\.labels.*{re.escape(said)}"):
        workload(f"federation.sites.0.resources.labels={labels}")


def test_labels_that_ray_takes_are_kept(workload: MakeWorkload) -> None:
    asked = "{ray.io/accelerator-type: 'in(H100, A100)', zone: '!eu-1.a_b', 'a.b/c': x}"
    (labels, *_) = [
        site.resources.labels for site in workload(f"federation.sites.0.resources.labels={asked}").federation.sites
    ]
    assert labels == {"ray.io/accelerator-type": "in(H100,A100)", "zone": "!eu-1.a_b", "a.b/c": "x"}
    assert hash(Resources(labels={"a": "1", "b": "2"})) == hash(Resources(labels={"b": "2", "a": "1"}))
    assert Resources(labels=H100) != Resources(labels=A100)


@pytest.mark.parametrize("size", [1, 2, "auto"])
@pytest.mark.parametrize("more", [(), ("engine.nodes=3",), ("engine.cores=8",)])
def test_every_client_is_on_a_node_that_it_asks_for(
    workload: MakeWorkload, size: int | str, more: tuple[str, ...]
) -> None:
    load = workload(RAY, f"engine.clients_per_actor={size}", on(0, "H100"), on(1, "'!H100'"), *more)
    clients = assemble(load).clients
    nodes = granted(load.engine, NODES, load.federation.kinds_of_needs)
    found = where(placed(load.engine, clients, nodes), nodes)
    assert sorted(found) == sorted(clients.names)
    for client in clients:
        labels = next(one.labels for one in nodes if one.name == found[client.name])
        wanted = {"A": {"H100"}, "B": {"A100", None}}.get(client.site, {"H100", "A100", None})
        assert labels.get("accelerator") in wanted
    assert {found[client.name] for client in clients if client.site == "A"} == {"one", "two"} & set(found.values())


def test_clients_of_each_kind_take_nodes_in_turn(workload: MakeWorkload) -> None:
    """Site A's two clients, then those of others, which may run anywhere."""
    load = workload(RAY, on(0, "H100"))
    assert list(where(placed(load.engine, assemble(load).clients, NODES), NODES).values()) == [
        "one",
        "two",
        "head",
        "one",
    ]


def test_under_a_limit_nodes_that_clients_ask_for_come_first() -> None:
    kinds = (Resources(labels=H100),)
    assert [one.name for one in granted(Engine(nodes=2), NODES, kinds)] == ["one", "two"]
    assert [one.name for one in granted(Engine(nodes=3), NODES, kinds)] == ["one", "two", "head"]
    assert [one.name for one in granted(Engine(nodes=2), NODES)] == ["head", "one"]
    assert granted(Engine(), NODES, kinds) == NODES
    assert [one.name for one in usable(NODES, {*kinds, Resources(labels=A100)})] == ["one", "two", "three"]


def test_on_gpus_too(workload: MakeWorkload) -> None:
    """Actors share the GPUs of the nodes that they may run on."""
    nodes = [node("head"), node("one", gpus=1, labels=H100), node("two", gpus=4, labels=A100)]
    for size in (1, "auto"):
        load = workload(RAY, f"engine.clients_per_actor={size}", *(on(site, "H100") for site in range(3)))
        placements = placed(load.engine, assemble(load).clients, nodes)
        assert set(where(placements, nodes).values()) == {"one"}
        assert unplaced(placements, nodes) == []
        assert len(where(placements, nodes)) == 4
    with pytest.raises(
        InputError, match=r"^site A: resources.labels: accelerator=!A100: nodes with them have no GPU, and "
    ):
        checked(workload(RAY, on(0, "'!A100'")), machine(nodes=(nodes[0], nodes[2])))


def test_where_no_node_carries_them_one_line_says_which_there_are(workload: MakeWorkload) -> None:
    plan = planned(workload(*TINY, RAY, on(1, "H200")), machine(nodes=tuple(NODES)))
    said = (
        "site B: resources.labels: accelerator=H200, and Ray has 2 nodes with accelerator=H100; 1 node without labels; "
        "1 node with accelerator=A100; ray start --labels gives a node some, and engine.backend serial needs none"
    )
    for more in ((), (AUTO,)):
        with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
            refuse(planned(workload(*TINY, RAY, on(1, "H200"), *more), machine(nodes=tuple(NODES))))
    rows = dict(zip(*(plan_tables(plan)[0].columns[at].cells for at in (0, 1)), strict=True))
    assert str(rows["node labels"]).startswith(
        "any for 3 clients, on 4 of 4 nodes; accelerator=H200 for 1 client, on 0 of 4 nodes (Ray has 2 nodes with"
    )


def test_a_serial_run_has_no_nodes_and_says_so(workload: MakeWorkload) -> None:
    (said,) = checked(workload(*TINY, on(0, "H100")), machine())
    assert said == (
        "site A: resources.labels: accelerator=H100, and a serial run has one process, on this machine; labels are for "
        "engine.backend ray"
    )


@pytest.mark.parametrize(
    ("unknown", "fits"),
    [(None, set()), ("ray.io/", {"ray.io/accelerator-type"}), ("", {"ray.io/accelerator-type", "zone"})],
)
def test_what_is_not_known_before_ray_runs_is_left_to_the_cluster(unknown: str | None, fits: set[str]) -> None:
    before = node("one", labels={"zone-of": "a"}, unknown_labels=unknown)
    keys = ("ray.io/accelerator-type", "zone", "zone-of")
    assert {key for key in keys if before.carries(Resources(labels={key: "b"}))} == fits


def test_many_kinds_of_nodes_are_one_line() -> None:
    kinds = [{"rack": str(number), "ray.io/node-id": f"{number:056x}"} for number in range(9)]
    assert kinds_text(kinds).count(";") == 5
    assert kinds_text(kinds).endswith("; 4 other kinds")
    assert kinds_text(kinds[:1]) == "1 node with rack=0"
    assert kinds_text(kinds) == kinds_text(kinds[::-1])
