"""Law 1 for packed actors: the same bits however clients are packed, moved, spilled, and in whatever order they end."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import pytest

from fedsim.algorithms.base import Vector
from fedsim.engine import backend as backends
from fedsim.engine.federation import assemble
from fedsim.engine.host.host import Host
from fedsim.engine.host.messages import NOTHING, Limits, Message, Reply, Reset, Row, Train
from fedsim.engine.host.training import make_learner
from fedsim.engine.ray.backend import RayBackend
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.engine.serial import SerialBackend
from fedsim.engine.simulation import run
from fedsim.workload.schema import Workload
from tests.engine.conftest import assert_same

Simulate = Callable[..., Run]
MakeWorkload = Callable[..., Workload]

SPILLED = "engine.state_memory=0"
UNCACHED = "engine.slice_memory=0"


def packed(size: int | str, *more: str) -> tuple[str, ...]:
    return ("engine.backend=ray", f"engine.clients_per_actor={size}", *more)


class Shuffled(SerialBackend):
    """A host for each client, called one by one in an order that changes every time."""

    draws = random.Random(5)

    def call(self, message: Message, broadcast: Mapping[str, Vector] = NOTHING) -> Iterator[Reply]:
        order = list(message.clients)
        self.draws.shuffle(order)
        for name in order:
            yield from super().call(message.for_clients((name,)), broadcast)


def simulated_with(backend: type[backends.Backend], workload: Workload, out: Path) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsim.engine.simulation.make_backend", lambda engine, address: backend(engine))
        return run(workload, out)


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_packed_spilled_and_shuffled_give_the_same_bits(
    simulate: Simulate, whole: Run, workload: MakeWorkload, tmp_path: Path
) -> None:
    """In memory, in a file, one actor, two actors, without kept slices, and finished in any order."""
    assert_same(whole, simulate(SPILLED, f"engine.scratch={tmp_path / 'scratch'}"))
    assert_same(whole, simulated_with(Shuffled, workload(), tmp_path / "shuffled"))
    assert_same(whole, simulate(*packed(4, SPILLED, UNCACHED)))
    assert_same(whole, simulate(*packed("auto", SPILLED)))


@pytest.mark.slow
def test_methods_with_more_state_are_spilled_alike(simulate: Simulate) -> None:
    """Ditto keeps a second model and optimizer, SCAFFOLD a control variate."""
    for method in ("ditto", "scaffold"):
        keys = (f"algorithm.name={method}", "training.rounds=2", "training.participation=0.75")
        assert_same(simulate(*keys), simulate(*keys, SPILLED))


@pytest.mark.slow
def test_a_spilled_run_resumes_in_memory(simulate: Simulate, whole: Run, tmp_path: Path) -> None:
    simulate("training.rounds=2", SPILLED, out=tmp_path / "part")
    (tmp_path / "part" / "evaluation.parquet").unlink()
    assert_same(whole, simulate(out=tmp_path / "part", resume=True))


class Unfair(RayBackend):
    """Believes that the clients of the fuller actor take very long, so that clients move every round."""

    def learn(self, rows: Iterable[Row]) -> None:
        slow = set(max(self.actors, key=lambda actor: len(actor.clients)).clients)
        super().learn([{**row, "train_seconds": 5.0 if row["client"] in slow else 0.1} for row in rows])


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_clients_that_move_keep_their_bits(
    simulate: Simulate, whole: Run, workload: MakeWorkload, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    for number, more in enumerate(((), (SPILLED,))):
        keys = packed("auto", f"engine.scratch={scratch}", *more)
        moved = simulated_with(Unfair, workload(*keys), tmp_path / f"moved-{number}")
        assert list(scratch.iterdir()) == [], "nothing is left of what was handed over"
        assert_same(whole, moved)
        processes = moved.clients.sort_values("round").groupby("client")["pid"]
        moves = processes.agg(lambda pids: (pids != pids.shift()).sum() - 1)
        assert moves.sum() >= 2, "the ledger shows that clients went on in another process"


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_auto_makes_one_actor_a_slot_with_equal_work(workload: MakeWorkload) -> None:
    load = workload(*packed("auto"))
    clients = assemble(load).clients
    backend = RayBackend(load.engine)
    backend.start(setup_of(load), clients)
    groups = [set(actor.clients) for actor in backend.actors]
    assert len(groups) == min(backend.slots(), len(clients))
    assert sorted(name for group in groups for name in group) == sorted(client.name for client in clients)
    backend.close()


class Counting(RayBackend):
    """Counts the calls under way."""

    most = 0

    def call(self, message: Message, broadcast: Mapping[str, Vector] = NOTHING) -> Iterator[Reply]:
        for reply in super().call(message, broadcast):
            Counting.most = max(Counting.most, len(self.running))
            yield reply


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("cpus", "at_once"), [(1, 2), (2, 1), (64, 1)])
def test_no_more_clients_train_at_once_than_there_are_cores(
    workload: MakeWorkload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int, at_once: int
) -> None:
    """A site that wants two cores leaves none for others; one that wants more than there are trains alone."""
    monkeypatch.setattr(Counting, "most", 0)
    sites = [f"federation.sites.{index}.resources.cpus={cpus}" for index in range(3)]
    simulated_with(Counting, workload(*packed(1), "engine.cores=2", *sites, "training.rounds=1"), tmp_path / "run")
    assert Counting.most == at_once


@pytest.mark.slow
def test_a_slow_client_is_seen_in_the_ledger(simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client's turn: it waits, loads, trains, sends; turns on one host do not overlap."""
    clients = simulate("training.rounds=2").clients
    parts = ["load_seconds", "train_seconds", "send_seconds"]
    assert (clients[parts] > 0).all().all()
    for _, turns in clients.groupby("round"):
        ends = (turns["begin_seconds"] + turns[parts].sum(axis=1)).to_numpy()
        assert (turns["begin_seconds"].to_numpy()[1:] >= ends[:-1] - 1e-2).all()
        assert (turns["evaluate_begin_seconds"] >= ends.max() - 1e-2).all()
        assert (turns["evaluate_seconds"] > 0).all()


def test_progress_of_a_long_call_is_reported(workload: MakeWorkload) -> None:
    load = workload()
    federation = assemble(load)
    host = Host(setup_of(load), federation.clients, Limits(report_seconds=0))
    weights: Mapping[str, float] = dict.fromkeys(federation.names, 0.25)
    order = Train(clients=federation.names, round=1, phase="train", since=0.0, weights=weights)
    replies = list(host.handle(order, make_learner(setup_of(load)).fresh_server()))
    assert [len(reply.rows) for reply in replies] == [0, 1, 1, 1, 1, 0]
    assert host.partial_sums().keys() == {"shared"}


def federation_of_24() -> tuple[str, ...]:
    """24 clients of unequal size, half of them drawn for a round, with weights by samples."""
    sites = [
        {"name": f"S{size}", "count": 8, "source": {"format": "phantom", "subjects": subjects, "slices": 2, "size": 32},
         "mask": {"kind": "equispaced", "acceleration": 3}}
        for size, subjects in enumerate((3, 5, 8))
    ]  # fmt: skip
    return (
        f"federation.sites={sites}", "federation.clients=24", "training.participation=0.5", "training.rounds=4",
        "algorithm.weighting=samples", "model.channels=4",
    )  # fmt: skip


@pytest.mark.usefixtures("ray_session")
@pytest.mark.long
@pytest.mark.timeout(900)  # 14 runs on Ray, two of them with an actor for each client
def test_24_clients_give_the_same_bits_in_every_placement(
    simulate: Simulate, workload: MakeWorkload, tmp_path: Path
) -> None:
    keys = federation_of_24()
    serial = simulate(*keys)
    assert serial.clients["client"].nunique() == 24
    for size in (1, 3, 16, 24, 12, "auto"):
        for more in ((), (SPILLED,)):
            assert_same(serial, simulate(*keys, *packed(size, *more)))
    assert_same(serial, simulated_with(Shuffled, workload(*keys), tmp_path / "shuffled"))
    assert_same(serial, simulated_with(Unfair, workload(*keys, *packed("auto")), tmp_path / "moved"))
    kept = pd.read_parquet(serial.path / "clients.parquet")
    assert (kept[kept["weight"] > 0].groupby("round").size() == 12).all()


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_hosts_in_the_middle_of_a_long_call_do_not_hold_up_a_start(workload: MakeWorkload) -> None:
    """Nobody fetches any more what they stream, so they wait, and would answer no question."""
    load = workload(*packed(4, "engine.on_lost_process=drop"))
    clients = assemble(load).clients
    backend = RayBackend(load.engine)
    backend.start(setup_of(load), clients)
    server = make_learner(setup_of(load)).fresh_server()
    names = tuple(client.name for client in clients)
    weights = dict.fromkeys(names, 0.25)
    before = {actor.handle for actor in backend.actors}
    answers = backend.call(Train(clients=names, round=1, phase="train", since=0.0, weights=weights), server)
    next(answers)
    backend.start(setup_of(load), clients)
    assert not before & {actor.handle for actor in backend.actors}, "they were in mid-call"
    assert len(list(backend.call(Reset(clients=names)))) == len(backend.actors)
    answers.close()  # type: ignore[attr-defined]
    backend.close()
