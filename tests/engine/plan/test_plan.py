"""A plan says beforehand what a run then does: bytes exactly, checkpoints nearly, times by what one client took."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fedsim.cli.plan_tables import busy_line
from fedsim.engine.federation import assemble
from fedsim.engine.host.training import make_learner
from fedsim.engine.place.machine import machine_of
from fedsim.engine.place.placement import Placement, placed, unplaced
from fedsim.engine.plan.calibration import OtherPrograms
from fedsim.engine.plan.fits import plan_run
from fedsim.engine.plan.memory import activation_bytes
from fedsim.engine.plan.times import Times, expected
from fedsim.engine.ray.backend import RayBackend
from fedsim.engine.record.run_directory import Run, setup_of
from tests.engine.plans import GB, TINY, MakeWorkload, P, Q, calibration, node, planned, times

# Sizes


def test_sizes_worked_out_by_hand(workload: MakeWorkload) -> None:
    """Four clients of FedMRI with exact negatives: one encoder up; the server's and four others down."""
    plan = planned(workload(*TINY, "engine.backend=ray"))
    assert plan.private == (4 * (Q + P + Q + 2),) * 3, "decoder, RMSprop's square averages of both parts, two counters"
    assert plan.private_bytes == 4 * plan.private[0]
    assert (plan.uplink_bytes, plan.downlink_bytes) == (4 * P, 5 * 4 * P)
    (phase,) = plan.traffic.phases.values()
    assert (phase.broadcast, phase.summed, phase.collected) == (5 * 4 * P, 8 * P, 4 * P)
    assert (plan.traffic.server, plan.traffic.peak) == (5 * 4 * P, 5 * 4 * P)
    assert plan.slices == (6, 9, 12), "A is cut in two, with two of its four training subjects each"


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "vectors", "counters"), [("rmsprop", 1, 1), ("adam", 2, 1), ("sgd", 0, 0)])
def test_the_private_state_of_each_optimizer(
    workload: MakeWorkload, simulate: Callable[..., Run], optimizer: str, vectors: int, counters: int
) -> None:
    keys = (*TINY, f"training.optimizer={optimizer}", "training.rounds=1")
    size = 4 * (Q + vectors * (P + Q) + 2 * counters)
    assert planned(workload(*keys)).private == (size, size, size)
    assert set(simulate(*keys).clients["private_bytes"]) == {size}


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        ("algorithm.exact_up_to=0",),
        ("algorithm.exact_up_to=0", "algorithm.weighting=samples", "model.norm=batch"),
        ("algorithm.own=false", "training.optimizer=adam"),
        ("algorithm.name=fedavg", "model.norm=batch"),
        ("algorithm.name=fedadam", "training.participation=0.5"),
        ("algorithm.name=scaffold",),
        ("algorithm.name=feddyn",),
        ("algorithm.name=ditto",),
        ("algorithm.name=transfer",),
        ("algorithm.name=single",),
        ("algorithm.name=centralised", "federation.clients=null"),
        ("algorithm.name=fl_mrcm", *TINY, "federation.clients=null"),
    ],
    ids=lambda keys: keys[0],
)
def test_a_calibrated_plan_has_the_bytes_of_the_run(
    workload: MakeWorkload, simulate: Callable[..., Run], tmp_path: Path, keys: tuple[str, ...]
) -> None:
    keys = (*keys, "training.rounds=2")
    plan = plan_run(workload(*keys), tmp_path / "none")
    run = simulate(*keys)
    rows = run.clients[(run.clients["round"] == 2) & (run.clients["weight"] > 0)]
    assert set(rows["private_bytes"]) == {plan.private[1]}
    assert set(rows["uplink_bytes"]) == {plan.uplink_bytes}
    assert set(rows["downlink_bytes"]) == {plan.downlink_bytes}
    if "training.participation=0.5" not in keys:  # there, some clients have no optimizer state yet
        checkpoint = folder_bytes(run.path / "checkpoints" / "round-0002")
        assert plan.checkpoint_bytes == pytest.approx(checkpoint, rel=0.04)


@pytest.mark.long
@pytest.mark.slow
def test_block_files_of_many_clients_are_foreseen(workload: MakeWorkload, simulate: Callable[..., Run]) -> None:
    source = "{format: phantom, subjects: 1, slices: 1, size: 32}"
    sites = f"federation.sites=[{{name: P, count: 300, source: {source}, split: {{train: 1, val: 0, test: 0}}}}]"
    keys = (*TINY[:1], sites, "federation.clients=null", "training.rounds=1", "algorithm.name=fedavg")
    plan, run = planned(workload(*keys)), simulate(*keys)
    checkpoint = folder_bytes(run.path / "checkpoints" / "round-0001")
    assert plan.checkpoint_bytes == pytest.approx(checkpoint, rel=0.04)


@pytest.mark.slow
def test_shards_that_are_not_there_yet(workload: MakeWorkload, tmp_path: Path) -> None:
    """Three sites with 18 slices, two of 32 x 32 and one of 48 x 48."""
    load = workload(f"federation.cache={tmp_path / 'cache'}")
    plan = planned(load)
    assert plan.missing_shards == 3
    for client in assemble(load).clients:
        with client.data.open():  # type: ignore[attr-defined]
            pass
    assert plan.cache_bytes == pytest.approx(folder_bytes(tmp_path / "cache"), rel=0.02)
    assert plan.cache_bytes > 8 * 18 * (2 * 32**2 + 48**2)
    assert (planned(load).missing_shards, planned(load).cache_bytes) == (0, 0)


def test_what_is_kept_in_memory_and_what_lies_in_scratch(workload: MakeWorkload) -> None:
    """One actor a node with two clients each; memory for one state and for the slices of no client."""
    size = 4 * (2 * Q + P + 2)
    keys = ("engine.backend=ray", "engine.clients_per_actor=2", f"engine.state_memory={1.5 * size / GB}")
    plan = planned(workload(*TINY, *keys, "engine.slice_memory=0"))
    assert [(node.actors, node.clients, node.slots) for node in plan.nodes] == [(1, 2, 1), (1, 2, 1)]
    assert [(node.state_bytes, node.scratch_bytes, node.slice_bytes) for node in plan.nodes] == [(size, size, 0)] * 2
    assert [sum(actor.unkept.values()) for actor in plan.actors] == [12 * 32**2, 24 * 32**2]


@pytest.mark.parametrize("domain", ["image", "kspace", "dual"])
def test_activations_grow_with_pixels(workload: MakeWorkload, domain: str) -> None:
    learner = make_learner(setup_of(workload(f"model.domain={domain}")))
    before = [vector.clone() for vector in (learner.shared, learner.local)]
    small, large = (activation_bytes(learner, side) for side in (16, 64))
    assert small == pytest.approx(large, rel=0.05)
    assert all((now == then).all() for now, then in zip((learner.shared, learner.local), before, strict=True))


# Placement


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("size", ["3", "auto"])
def test_actors_are_where_the_plan_says(workload: MakeWorkload, tmp_path: Path, size: str) -> None:
    keys = ("federation.sites.2.resources.cpus=2", f"engine.clients_per_actor={size}", "engine.backend=ray")
    load = workload(*keys)
    clients, there = assemble(load).clients, machine_of(load, tmp_path / "run")
    placements = placed(load.engine, clients, there.nodes)
    backend = RayBackend(load.engine)
    backend.start(setup_of(load), clients)
    assert [list(actor.clients) for actor in backend.actors] == [[c.name for c in p.clients] for p in placements]
    assert [actor.placement.cpus for actor in backend.actors] == [placement.cpus for placement in placements]
    assert {actor.node for actor in backend.actors} == {node.id for node in there.nodes}
    backend.close()


def test_gpus_are_shared_within_one() -> None:
    """0.6 of a GPU fits once into each; whole ones must be free altogether."""
    nodes = [node("one", gpus=2, actor_memory=0)]

    def actors(*gpus: float) -> list[Placement]:
        return [Placement(node=0, pinned=True, clients=(), cpus=1, gpus=share) for share in gpus]

    assert unplaced(actors(0.6, 0.4, 0.6, 0.4), nodes) == []
    assert len(unplaced(actors(0.6, 0.6, 0.6), nodes)) == 1
    assert unplaced(actors(2), nodes) == []
    assert len(unplaced(actors(0.1, 2), nodes)) == 1


# Times


@pytest.mark.slow
def test_a_round_ends_with_its_last_client(workload: MakeWorkload) -> None:
    """Clients of 6, 6, 12 and 12 slices on two nodes with four cores: all at once, or one after the other."""
    ray = (*TINY, "engine.backend=ray")
    assert times(workload(*ray)).client == pytest.approx((6.1, 9.1, 12.1))
    assert times(workload(*ray)).round == pytest.approx(12.1)
    assert times(workload(*ray, "engine.clients_per_actor=2")).round == pytest.approx(24.2)
    assert times(workload(*ray, "engine.threads=4")).round == pytest.approx(18.2), "A.1 and B, then A.2 and C"
    assert times(workload(*TINY)).round == pytest.approx(36.4), "one process"
    assert times(workload(*ray, "training.local_epochs=2")).round == pytest.approx(24.1)
    assert times(workload(*ray, "algorithm.name=transfer")).round == pytest.approx(36.4), "in turn"
    assert times(workload(*ray, "engine.slice_memory=0")).round == pytest.approx(24.1), "slices are read anew"


def test_all_rounds(workload: MakeWorkload) -> None:
    """Three rounds, each with a validation (3 slices a client) and a checkpoint (1 GB: 2 s), and a test at the end."""
    one = times(workload(*TINY))
    assert (one.validation, one.checkpoint, one.start) == (pytest.approx(4 * 0.3), 2, 0)
    assert one.total == pytest.approx(3 * (36.4 + 1.2 + 2) + 1.2)
    rare = times(workload(*TINY, "metrics.every=2", "engine.checkpoint_every=0"))
    assert rare.total == pytest.approx(3 * 36.4 + 1.2 + 2 + 1.2)
    assert times(workload(*TINY, "metrics.clients=3")).validation == pytest.approx(3 * 0.3)
    half = times(workload(*TINY, "metrics.clients=cohort", "training.participation=0.5"))
    assert half.validation == pytest.approx(2 * 0.3)


# The machine


def test_this_machine(workload: MakeWorkload, tmp_path: Path) -> None:
    first, second = (tmp_path / "run" / "checkpoints" / f"round-000{number}" for number in (1, 2))
    for folder in (first, second):
        folder.mkdir(parents=True)
    (first / "shared.safetensors").write_bytes(b"x" * 99)
    (second / "client.safetensors").hardlink_to(first / "shared.safetensors")
    there = machine_of(workload("engine.scratch=" + str(tmp_path / "not" / "yet")), tmp_path / "run")
    (here,) = there.nodes
    assert 0 < here.actor_memory < here.total_memory
    assert here.cpus >= 1
    assert here.scratch is not None
    assert here.scratch.number == there.out.number
    assert there.out.free > 0
    assert there.out_bytes == 99


@pytest.mark.slow
def test_a_busy_machine_is_noticed_and_said() -> None:
    spins = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    cores = psutil.cpu_count() or 1
    with ExitStack() as stack:
        for _ in range(2 * cores):
            other = stack.enter_context(subprocess.Popen(spins, stdout=subprocess.PIPE))
            stack.callback(other.kill)
            assert other.stdout
            other.stdout.readline()
        load, on_gpu, until = OtherPrograms("cpu"), OtherPrograms("cuda"), time.process_time() + 0.3
        while time.process_time() < until:
            pass
        others, slower = load.measured()
        assert on_gpu.measured()[1] == 1.0, "it may have waited for the GPU"
    assert others > cores / 2
    assert slower > 1.2
    times = Times(
        client=(1, 1, 1), round=1, validation=1, checkpoint=1, start=1, shards=0, total=100, others=4, beside_others=300
    )
    line = busy_line(times)
    assert line is not None
    assert "asked for 4.0 cores" in line
    assert "1 min 40 s is for an idle one; expect about 5 min 0 s" in line
    assert busy_line(replace(times, beside_others=105)) is None


def test_others_leave_less_to_a_run(workload: MakeWorkload) -> None:
    """A serial run has a core of its own where one is free, and a share of one where others ask for all of them."""
    plan = planned(workload(*TINY))
    cores = sum(node.cpus for node in plan.machine.nodes)
    for others, longer in ((0.0, 1), (cores - 1, 1), (2 * cores - 1, 2)):
        made = calibration(plan, others=others)
        found = expected(plan.workload, plan.actors, plan.machine.nodes, made, 0.0, 1 * GB, plan.registered)
        assert found.beside_others == pytest.approx(longer * found.total)
