"""Law 2: private state stays where it is, and what crosses is counted."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fedsim.algorithms.fedavg import FedAvg
from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.single import Single
from fedsim.engine.federation import assemble
from fedsim.engine.host.host import Host
from fedsim.engine.host.merging import PartialSum
from fedsim.engine.host.messages import Evaluate, Layouts, Reply, Train, Validate
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.models.base import is_encoder
from fedsim.models.reconstruction import UNetModel
from fedsim.workload.schema import Workload
from tests.engine.conftest import load


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """Every array in a reply, however deep, and nothing but plain values besides."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Reply):
        yield from arrays_in([value.sums, value.collected, value.rows, value.digests])
    elif isinstance(value, PartialSum):
        yield from arrays_in([value.total, value.grid, value.bound])
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays_in(item)
    else:
        assert isinstance(value, str | int | float), type(value)


@pytest.mark.parametrize(("method", "uploads"), [("fedmri", 2), ("fedavg", 1), ("single", 0)])
def test_only_shared_parameters_leave_a_host(workload: Callable[..., Workload], method: str, uploads: int) -> None:
    load = workload(f"algorithm.name={method}")
    federation, setup = assemble(load), setup_of(load)
    host, learner = Host(setup, federation.clients), make_learner(setup)
    before = learner.shared.numpy().copy()
    server, everybody = {"shared": before}, federation.names
    order = Train(clients=("B",), round=1, phase="train", since=time.time(), weights={"B": 1.0})
    replies = list(host.handle(order, server))
    sent = list(arrays_in([*replies, host.partial_sums()]))
    assert len(sent) == uploads
    assert all(array.shape == before.shape for array in sent)
    validated = list(host.handle(Validate(clients=everybody, round=1, since=time.time()), server))
    assert any(reply.rows for reply in validated)
    assert not list(arrays_in(validated))
    assert not list(arrays_in(list(host.handle(Evaluate(clients=("B",), round=1, part="test"), server))))
    assert not list(arrays_in([list(reply.layouts) for reply in host.handle(Layouts(clients=everybody))]))


@pytest.mark.parametrize(
    ("model", "expected"), [({}, 18_838_656), ({"domain": "dual"}, 37_678_464), ({"channels": 8}, 1_177_632)]
)
def test_uplink_of_the_paper(model: dict[str, Any], expected: int) -> None:
    """Bytes a client and round that FedMRI sends, as the shapes say."""
    network = UNetModel.model_validate(model).network()
    assert 4 * sum(p.numel() for name, p in network.named_parameters() if FedMRI().shares(name)) == expected


@pytest.mark.slow
def test_the_ledger_counts_what_crosses(simulate: Callable[..., Run]) -> None:
    run = simulate()
    encoder = sum(array.nbytes for array in load(run, 1, "shared").values())
    first, later = (run.clients[run.clients["round"] == r] for r in (1, 2))
    assert (run.clients["uplink_bytes"] == encoder).all()
    assert (first["downlink_bytes"] == encoder).all()
    assert (later["downlink_bytes"] == (1 + 4) * encoder).all(), "the mean and four negatives"
    assert (run.rounds["uplink_bytes"] == 4 * encoder).all()


@pytest.mark.slow
def test_a_checkpoint_holds_encoders_once_and_every_decoder(simulate: Callable[..., Run]) -> None:
    run = simulate("training.rounds=2")
    shared, ours, theirs = (load(run, 2, name) for name in ("shared", "clients/A.1", "clients/B"))
    assert shared
    assert all(is_encoder(name) for name in shared)
    private = {name for name in ours if not name.startswith("state.")}
    assert private
    assert not any(is_encoder(name) for name in private)
    assert any((ours[name] != theirs[name]).any() for name in private), "decoders differ between clients"
    named = dict(run.model("B").named_parameters())
    assert named.keys() == shared.keys() | private


def test_shares_of_the_methods() -> None:
    names = [name for name, _ in UNetModel(domain="dual", channels=2, pools=1).network().named_parameters()]
    assert all(FedAvg().shares(name) for name in names)
    assert not any(Single().shares(name) for name in names)
    assert 0 < sum(FedMRI().shares(name) for name in names) < len(names)
