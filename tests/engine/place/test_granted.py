"""What engine.nodes and engine.cores leave of a cluster."""

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.place.placement import granted
from fedsim.workload.engine import Engine
from tests.engine.plans import node

NODES = [node("a", 4), node("b", 2, gpus=1), node("c", 1.5)]


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ({}, {"a": 4, "b": 2, "c": 1.5}),
        ({"nodes": 2}, {"a": 4, "b": 2}),
        ({"cores": 1}, {"a": 1}),
        ({"cores": 5}, {"a": 2, "b": 2, "c": 1}),
        ({"cores": 7}, {"a": 4, "b": 2, "c": 1}),
        ({"nodes": 2, "cores": 3}, {"a": 2, "b": 1}),
    ],
)
def test_cores_are_taken_in_turn(keys: dict[str, int], left: dict[str, float]) -> None:
    assert {node.id: node.cpus for node in granted(Engine(**keys), NODES)} == left


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"nodes": 4}, "engine.nodes: 4, and the Ray cluster has 3; lower it, or set engine.nodes_timeout_s"),
        ({"cores": 8}, "engine.cores: 8, and there are 7; lower it"),
        ({"nodes": 1, "cores": 5}, "engine.cores: 5, and there are 4; lower it"),
    ],
)
def test_more_than_there_is(keys: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        granted(Engine(**keys), NODES)


def test_a_plan_does_not_ask_for_nodes_that_the_run_waits_for() -> None:
    engine = Engine(nodes=5, nodes_timeout_s=60)
    assert granted(engine, NODES, early=True) == NODES
    with pytest.raises(InputError, match=r"^engine\.nodes: 5, and the Ray cluster has 3; lower it$"):
        granted(engine, NODES)
    with pytest.raises(InputError, match=r"lower it, or set engine\.nodes_timeout_s to wait for more$"):
        granted(Engine(nodes=5), NODES, early=True)
