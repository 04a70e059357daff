"""What reaches a host of a message: what is its own clients', and nothing of the others'."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsim.engine.backend import Backend
from fedsim.engine.federation import assemble
from fedsim.engine.gather import by_sum
from fedsim.engine.host.faulty import FaultyHost, host_class
from fedsim.engine.host.host import Host
from fedsim.engine.host.messages import Load, Lot, Message, Reply, Reset, Save, Train, Validate
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import setup_of
from fedsim.engine.serial import SerialBackend
from fedsim.engine.state.client_files import FilePart
from fedsim.workload.faults import Fault
from fedsim.workload.schema import Workload

EVERYBODY = ("A", "B", "C", "D")
NAN = Fault(kind="nan")
FILES = [FilePart(Path("one"), "header", {"A": "a", "B": "b"}), FilePart(Path("two"), "header", {"C": "c", "D": "d"})]


def training(clients: tuple[str, ...] = EVERYBODY, **faults: Sequence[Fault]) -> Train:
    weights = {name: 1 / len(clients) for name in clients}
    return Train(clients=clients, round=1, phase="train", since=0.0, weights=weights, faults=faults)


def test_training_carries_the_weights_and_faults_of_its_own_clients() -> None:
    mine = training(A=[NAN], D=[NAN]).for_clients(("D", "B"))
    assert mine.clients == ("D", "B")
    assert list(mine.weights) == ["D", "B"]
    assert mine.faults == {"D": [NAN]}


def test_messages_carry_the_lots_of_their_own_clients() -> None:
    late = Lot(round=2, staleness=1, reads="0/", enters="2/", scale=0.5)
    for message in (
        replace(training(), lots={"B": late}),
        Validate(clients=EVERYBODY, round=1, lots={"B": late}, since=0.0),
    ):
        mine = message.for_clients(("D", "B"))
        assert mine.lots == {"B": late}
        assert (mine.lot("B"), mine.lot("D")) == (late, Lot(round=1))
        assert not message.for_clients(("A",)).lots


def test_clients_of_one_call_read_and_enter_what_is_theirs(workload: Callable[..., Workload]) -> None:
    """As two calls would: other states of the server, other rounds, other sums, one of them scaled."""
    load = workload("algorithm.name=fedavg")
    now = make_learner(setup_of(load)).fresh_server()["shared"]
    before = now + np.float32(0.01)
    lots = {
        "B": Lot(round=3, staleness=2, reads="0/", enters="3/", scale=0.5),
        "C": Lot(round=4, reads="3/", enters="4/"),
    }

    def replies(order: Train, broadcast: dict[str, np.ndarray]) -> list[Reply]:
        backend = SerialBackend(load.engine)
        backend.start(setup_of(load), assemble(load).clients)
        return list(backend.call(order, broadcast))

    both = replies(replace(training(("B", "C")), lots=lots), {"0/shared": before, "3/shared": now})
    assert {row["client"]: row["round"] for reply in both for row in reply.rows} == {"B": 3, "C": 4}
    parts = by_sum(both[-1], lots)
    assert parts.keys() == {"3/", "4/"}
    for name, round_, read, scale in (("B", 3, before, 0.5), ("C", 4, now, 1.0)):
        alone = replies(replace(training((name,)), round=round_, weights={name: 0.5 * scale}), {"shared": read})
        assert (parts[lots[name].enters].sums["shared"].total == alone[-1].sums["shared"].total).all()


def test_checkpoints_carry_the_files_of_their_own_clients() -> None:
    save = Save(clients=EVERYBODY, folder=Path("/x"), files={name: f"{name}.f" for name in EVERYBODY})
    assert save.for_clients(("C",)).files == {"C": "C.f"}
    load = Load(clients=EVERYBODY, parts=FILES).for_clients(("A", "D"))
    assert [(part.file.name, part.clients) for part in load.parts] == [("one", {"A": "a"}), ("two", {"D": "d"})]
    assert [part.file.name for part in Load(clients=EVERYBODY, parts=FILES).for_clients(("B",)).parts] == ["one"]


@pytest.mark.parametrize("size", [8, 512])
def test_what_a_host_receives_does_not_grow_with_the_federation(size: int) -> None:
    everybody = tuple(f"client-{index:04d}" for index in range(size))
    messages: list[Message] = [
        training(everybody, **{name: [NAN] for name in everybody}),
        Save(clients=everybody, folder=Path("/x"), files={name: f"{name}.f" for name in everybody}),
        Load(clients=everybody, parts=[FilePart(Path(name), "h", {name: "d"}) for name in everybody]),
        Reset(clients=everybody),
        Validate(clients=everybody, round=1, since=0.0),
    ]
    sizes = [len(pickle.dumps(message.for_clients(everybody[:2]))) for message in messages]
    assert max(sizes) < 1000


def test_only_a_workload_with_faults_has_hosts_with_faults(workload: Callable[..., Workload]) -> None:
    plain, faulty = workload(), workload("faults=[{kind: nan, client: B, round: 3}]")
    assert host_class(setup_of(plain)) is Host
    assert host_class(setup_of(faulty)) is FaultyHost
    order = training(("B",), B=[NAN])
    for load, failing in ((plain, set()), (faulty, {"B"})):
        backend: Backend = SerialBackend(load.engine)
        backend.start(setup_of(load), assemble(load).clients)
        server = make_learner(setup_of(load)).fresh_server()
        replies: list[Reply] = list(backend.call(order, server))
        assert {name for reply in replies for name in reply.failed} == failing
        backend.close()


def test_the_last_reply_of_training_holds_the_sums(workload: Callable[..., Workload]) -> None:
    load = workload("algorithm.name=fedavg")
    backend = SerialBackend(load.engine)
    backend.start(setup_of(load), assemble(load).clients)
    server = make_learner(setup_of(load)).fresh_server()
    *pieces, last = backend.call(training(("B",)), server)
    backend.close()
    assert not any(reply.sums for reply in pieces)
    assert {name: partial.total.shape for name, partial in last.sums.items()} == {"shared": server["shared"].shape}
    assert (last.sums["shared"].total.astype(np.float32) != server["shared"]).any()
