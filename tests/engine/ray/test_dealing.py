"""Clients that first take part get an actor: as many to each, those of the call that have one included."""

from collections.abc import Sequence
from dataclasses import replace

from fedsim.algorithms.training import Training
from fedsim.data.samples import PooledData
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.place.placement import Placement
from fedsim.engine.ray.calls import Actor
from fedsim.engine.ray.homes import Homes
from fedsim.workload.resources import Resources


def actor(needs: Resources | None = None) -> Actor:
    placement = Placement(node=0, pinned=True, clients=(), needs=needs or Resources())
    return Actor(handle=None, placement=placement, node="node")


def clients(*names: str) -> list[ClientSpec]:
    return [ClientSpec(name=name, site=name, data=PooledData(()), training=Training()) for name in names]


def dealt(homes: Homes, new: Sequence[ClientSpec], names: Sequence[str], actors: Sequence[Actor]) -> list[list[str]]:
    """The clients of each actor, in order, after some have been dealt."""
    for own, given in homes.deal(new, names, actors):
        assert {client.name for client in given} <= own.clients.keys()
    return [list(one.clients) for one in actors]


def test_new_clients_go_where_those_that_come_back_are_few() -> None:
    homes, actors = Homes(), [actor(), actor()]
    assert dealt(homes, clients(*"ABCD"), "ABCD", actors) == [["A", "C"], ["B", "D"]]
    assert dealt(homes, clients(*"EF"), "ACEF", actors) == [["A", "C"], ["B", "D", "E", "F"]]
    assert dealt(homes, [], "ABEF", actors) == [["A", "C"], ["B", "D", "E", "F"]], "homes are kept"
    assert [mine for _, mine in homes.by_actor("ABEFZ")] == [["A"], ["B", "E", "F"]]


def test_clients_with_needs_go_to_actors_of_their_kind() -> None:
    needs = Resources(cpus=2)
    homes, actors = Homes(), [actor(), actor(needs)]
    picky = [replace(one, resources=needs) for one in clients(*"XY")]
    assert dealt(homes, [*clients("A"), *picky, *clients("B")], "AXYB", actors) == [["A", "B"], ["X", "Y"]]
