"""The server's step: running statistics are the engine's, and a phase that nobody answered changes nothing."""

import numpy as np
import pytest

from fedsim.algorithms.base import Phase, Received
from fedsim.algorithms.fedavg import FedAvg
from fedsim.core.errors import MethodError
from fedsim.engine.server import Server


def received(*clients: str, **sums: float) -> Received:
    return Received(
        phase=Phase(clients),
        sums={name: np.full(3, value) for name, value in sums.items()},
        weight=0.5,
        collected={},
        population=4,
    )


def server(**state: float) -> Server:
    return Server(FedAvg(), {name: np.full(3, value, np.float32) for name, value in state.items()})


def test_a_phase_is_taken_up_as_the_mean_of_those_who_answered() -> None:
    one = server(shared=1.0)
    one.take_up(received("A", shared=3.0))
    assert one.state["shared"].tolist() == [6.0] * 3
    one.take_up(received())
    assert one.state["shared"].tolist() == [6.0] * 3


def test_running_statistics_travel_beside_what_the_method_sends() -> None:
    assert [upload.name for upload in server(shared=1.0).uploads("train")] == ["shared"]
    one = server(shared=1.0, buffers=2.0)
    assert [upload.name for upload in one.uploads("train")] == ["shared", "buffers"]
    assert {name: vector[0] for name, vector in one.broadcast("train").items()} == {"shared": 1.0, "buffers": 2.0}
    one.take_up(received("A", shared=3.0, buffers=4.0))
    assert {name: vector[0] for name, vector in one.deployed().items()} == {"shared": 6.0, "buffers": 8.0}
    one.take_up(received("A", shared=1.0))
    assert one.state["buffers"].tolist() == [8.0] * 3, "a phase that sends none leaves them"


def test_what_a_method_may_not_return_is_refused_with_the_round() -> None:
    with pytest.raises(MethodError, match=r"^round 7: .*finite numbers as 'shared'.*in update of fedavg"):
        server(shared=1.0).take_up(received("A", shared=np.nan), "round 7")
