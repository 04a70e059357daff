"""Whom a lost or late process was working for: one client, or several that train as one network."""

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.host.messages import Reply
from fedsim.engine.place.placement import Placement
from fedsim.engine.ray.calls import Actor, Call
from tests.engine.plans import MakeWorkload


def call(fuse: int) -> Call:
    """An actor that trains A and B, and has said that it is at work."""
    actor = Actor(handle=None, placement=Placement(node=0, pinned=True, clients=()), node="", clients={})
    made = Call(actor=actor, last=None, awaited={"A": None, "B": None}, heard=0.0, fuse=fuse)
    made.hear(Reply())
    return made


def test_one_client_at_a_time_is_known_by_name() -> None:
    one = call(1)
    assert one.at_work == "A"
    late = one.late(4.0)
    assert (late.client, late.late) == ("A", True)
    assert str(late) == "client A took longer than engine.client_timeout_s=4"
    one.hear(Reply(rows=[{"client": "A"}]))
    assert one.at_work == one.late(4.0).client == "B"


def test_nobody_is_blamed_for_clients_that_train_as_one_network() -> None:
    fused = call(8)
    assert fused.at_work == ""
    late = fused.late(4.0)
    assert (late.client, late.late) == ("", True)
    assert str(late) == "8 clients that train as one network took longer than engine.client_timeout_s=4 each"


def test_a_lost_process_cannot_drop_one_of_several_clients_at_work(workload: MakeWorkload) -> None:
    drop = "engine.on_lost_process=drop"
    expected = r"engine\.on_lost_process: drop needs to know .* training\.fuse=2 .*; set it to replay or abort, or"
    with pytest.raises(InputError, match=expected):
        workload(drop, "training.fuse=2")
    assert workload(drop).engine.on_lost_process == "drop"
    assert workload("engine.on_lost_process=abort", "training.fuse=2").training.fuse == 2
