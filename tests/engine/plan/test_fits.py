"""What cannot fit is refused with the key to change; with the value that the refusal names, it fits."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fedsim.cli.plan_tables import plan_tables
from fedsim.core.errors import InputError
from fedsim.core.text import bytes_text
from fedsim.engine.place.machine import Machine
from fedsim.workload.schema import Workload
from tests.engine.plans import GB, TINY, MakeWorkload, P, Q, checked, disk, machine, planned, with_nodes

RAY = (*TINY, "engine.backend=ray")
AUTO, PAIRS = "engine.clients_per_actor=auto", "engine.clients_per_actor=2"
STATE = 4 * (2 * Q + P + 2)


def sites(key: str) -> tuple[str, ...]:
    """A key of every site."""
    return tuple(f"federation.sites.{number}.{key}" for number in range(3))


def refusal(workload: Workload, on: Machine) -> str:
    with pytest.raises(InputError) as error:
        checked(workload, on)
    assert "\n" not in str(error.value)
    return str(error.value)


def gpus(one: int, two: int) -> Machine:
    return machine(gpus_one=one, gpus_two=two)


RESERVED = [
    (("engine.device=cuda",), machine(), "engine.device: cuda needs a GPU", "engine.device=auto"),
    (sites("resources.gpus=4"), gpus(2, 1), "site A: resources.gpus: 4, and no node has more than 2", None),
    (sites("resources.gpus=0.5"), machine(), "site A: resources.gpus: 0.5, and there is no GPU; leave it out, or set "
     "engine.device to cpu", "engine.device=cpu"),
    (
        tuple(f"federation.sites.{at}.resources={{gpus: 0.4, cpus: 1.{at}}}" for at in range(3)), gpus(1, 0),
        r"resources.gpus: 4 actors ask for 0\.4 each, and the nodes have 1 in all; set it to at most 0\.25", None,
    ),
    (
        (AUTO, "federation.sites.0.resources.gpus=1"), gpus(1, 0),
        "resources.gpus: those that are asked for leave none to 2 actors of other sites", "engine.device=cpu",
    ),
    ((AUTO, *sites("resources.gpus=0")), gpus(1, 1), "resources.gpus: 0 leaves", "engine.device=cpu"),
    (("federation.sites.1.resources.memory=64",), machine(), "site B: resources.memory: 64 GB, .* at most 10$", None),
    (sites("resources.memory=6"), machine(), "resources.memory: 4 actors ask .* at most 5, or", PAIRS),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "on", "message", "remedy"), RESERVED)
def test_actors_without_a_place(
    workload: MakeWorkload, keys: tuple[str, ...], on: Machine, message: str, remedy: str | None
) -> None:
    assert re.search(message, refusal(workload(*RAY, *keys), on))
    if remedy is not None:
        assert checked(workload(*RAY, *keys, remedy), on) == []


def test_actors_that_do_not_fit_into_memory(workload: MakeWorkload) -> None:
    """Beside driver and Ray there is room for one actor on each node, not for two."""
    tight = with_nodes(total_memory=1.7 * GB)
    message = refusal(workload(*RAY), tight)
    assert message.startswith("engine.clients_per_actor: 2 actors of 450 MB and 1 GB for driver and Ray")
    assert message.endswith("do not fit into the 1.7 GB of one; set it to 2 or more")
    assert checked(workload(*RAY, "engine.clients_per_actor=2"), tight) == []
    assert "set it to auto" in refusal(workload(*RAY, "engine.threads=4"), tight)
    assert checked(workload(*RAY, "engine.threads=4", "engine.clients_per_actor=auto"), tight) == []


def test_a_step_or_a_driver_that_does_not_fit(workload: MakeWorkload) -> None:
    serial = (*TINY, "training.batch_size=12")
    assert "training.batch_size: an actor of" in refusal(workload(*serial), with_nodes(total_memory=0.62 * GB))
    assert checked(workload(*TINY, "training.batch_size=1"), with_nodes(total_memory=0.64 * GB)) == []
    assert "training.participation: driver and Ray" in refusal(workload(*RAY), with_nodes(total_memory=1 * GB))
    message = refusal(workload(*RAY, "algorithm.name=fedavg"), with_nodes(total_memory=1 * GB))
    assert message.startswith("engine.backend: driver and Ray need 1 GB")


def test_state_beyond_memory(workload: MakeWorkload) -> None:
    """What the actors leave holds the slices and one and a half states of two; then one of them goes to scratch."""
    node = planned(workload(*RAY)).nodes[0]
    memory = (node.other_bytes + node.process_bytes + node.slice_bytes + 1.5 * STATE) / 0.95
    message = refusal(workload(*RAY), with_nodes(total_memory=memory))
    assert message.startswith("engine.state_memory: ")
    value = float(message.rpartition("at most ")[2])
    assert value * GB == pytest.approx(1.5 * STATE, rel=0.02)
    assert checked(workload(*RAY, f"engine.state_memory={value}"), with_nodes(total_memory=memory)) == []
    memory -= (1.5 * STATE + 0.5 * node.slice_bytes) / 0.95
    message = refusal(workload(*RAY), with_nodes(total_memory=memory))
    value = float(re.search("engine.slice_memory: .* at most (.*) each", message)[1])  # type: ignore[index]
    keys = (f"engine.state_memory={value}", f"engine.slice_memory={value}")
    assert checked(workload(*RAY, *keys), with_nodes(total_memory=memory)) == []


def test_scratch_that_is_too_small(workload: MakeWorkload) -> None:
    keys = (*RAY, "engine.state_memory=0")
    small = with_nodes(scratch=disk("/scratch", STATE, 1))
    assert refusal(workload(*keys), small) == (
        f"engine.state_memory: {bytes_text(2 * STATE)} of private state do not fit "
        f"into the {bytes_text(STATE)} that are free for /scratch of two; set it to 0.1, "
        "or engine.scratch to a folder with more space"
    )
    assert checked(workload(*RAY, "engine.state_memory=0.1"), small) == []
    alone = replace(small, nodes=small.nodes[:1])
    memory = (planned(workload(*keys), alone).nodes[0].memory_bytes + 100) / 0.95
    full = replace(alone, nodes=(replace(alone.nodes[0], total_memory=memory),))
    assert refusal(workload(*keys), full).startswith("engine.scratch: ")


def test_what_does_not_fit_is_red(workload: MakeWorkload) -> None:
    small = with_nodes(scratch=disk("/scratch", STATE, 1))
    _, needs, _ = plan_tables(planned(workload(*RAY, "engine.state_memory=0"), small))
    names = list(needs.columns[0].cells)
    assert [name for name, row in zip(names, needs.rows, strict=True) if row.style == "red"] == [
        "disk: private state beyond memory"
    ] * 2, "on both nodes"


def test_checkpoints_that_do_not_fit(workload: MakeWorkload) -> None:
    """Ten rounds and keep_last: 9 hold ten checkpoints; with the best and the one being written, 3 + 2 fit into 5.5."""
    keys = (*TINY, "training.rounds=10")
    size = planned(workload(*keys)).checkpoint_bytes
    assert planned(workload(*keys)).checkpoints == 10

    def room_for(checkpoints: float, there: float = 0) -> Machine:
        return machine(out=disk("/runs/x", checkpoints * size, 3), out_bytes=there * size)

    message = refusal(workload(*keys), room_for(5.5))
    assert message.startswith("engine.keep_last: ")
    assert message.endswith("that are free for /runs/x; set it to 3, or choose an --out with more space")
    assert checked(workload(*keys, "engine.keep_last=3"), room_for(5.5)) == []
    assert "engine.keep_last: " in refusal(workload(*keys, "engine.keep_last=4"), room_for(5.5))
    assert refusal(workload(*keys), room_for(1.5)).startswith("engine.checkpoint_every: ")
    assert checked(workload(*keys, "engine.checkpoint_every=0"), room_for(1.5)) == []
    assert refusal(workload(*keys, "engine.checkpoint_every=0"), room_for(0.5)).startswith("--out: ")
    assert checked(workload(*keys), room_for(1.5, there=9)) == [], "a resumed run has most of them already"


def test_shards_that_do_not_fit(workload: MakeWorkload, tmp_path: Path) -> None:
    load = workload(f"federation.cache={tmp_path / 'cache'}")
    small = machine(cache=disk("/cache", planned(load).cache_bytes - 1, 2))
    assert re.match("federation.cache: .* of shards do not fit .* /cache; choose a folder", refusal(load, small))


def test_folders_on_one_disk_share_what_is_free(workload: MakeWorkload, tmp_path: Path) -> None:
    keys = (*TINY, f"federation.cache={tmp_path / 'cache'}", "engine.checkpoint_every=0")
    load = workload(*keys, "engine.state_memory=0")
    plan = planned(load)
    parts = (plan.nodes[0].scratch_bytes, plan.cache_bytes, plan.checkpoints * plan.checkpoint_bytes)
    free = sum(parts) - 1

    def on(*numbers: int) -> Machine:
        scratch, cache, out = (disk(f"/{number}", free, number) for number in numbers)
        return replace(machine(), nodes=(replace(machine().nodes[0], scratch=scratch),), cache=cache, out=out)

    assert checked(load, on(1, 2, 3)) == []
    message = refusal(load, on(1, 1, 1))
    assert message.startswith("engine.state_memory: ")
    assert all(f"{bytes_text(part)} of" in message for part in parts)
    assert checked(workload(*keys, "engine.state_memory=0.1"), on(1, 1, 1)) == []


def test_shards_that_a_client_opens_at_once(workload: MakeWorkload) -> None:
    """A pooling client reads three sites, if its slices do not stay in memory."""
    keys = ("algorithm.name=centralised", "federation.clients=null", "engine.slice_memory=0")
    few = machine(open_files=258)
    message = refusal(workload(*RAY, *keys), few)
    assert message.startswith("engine.slice_memory: a client reads 3 shards at once, and a process may have 258 files")
    assert message.endswith("set it to 0.1, so that slices stay in memory")
    assert checked(workload(*RAY, *keys, "engine.slice_memory=0.1"), few) == []
    assert checked(workload(*RAY, *keys), machine(open_files=259)) == []


def test_more_cores_than_a_node_has_are_only_warned_about(workload: MakeWorkload) -> None:
    keys = ("federation.sites.0.resources.cpus=8",)
    assert checked(workload(*RAY, *keys), machine()) == [
        "site A: resources.cpus: 8, and no node has more than 4; 2 of 4 clients train alone on their node"
    ]
    assert checked(workload(*TINY, *keys), machine()) == [], "without Ray there is nothing to reserve"


def test_what_the_device_makes_of_precision_and_determinism(workload: MakeWorkload) -> None:
    tf32, free = "training.precision=tf32", "engine.deterministic=false"
    (said,) = checked(workload(*RAY, tf32, free), machine())
    assert said == "training.precision: tf32 exists on GPUs only; on the CPU clients train in float32"
    (said,) = checked(workload(*RAY, tf32, free), gpus(1, 1))
    assert said.startswith("engine.deterministic: false: a run that is repeated, resumed or placed otherwise ends in")
    assert checked(workload(*RAY, tf32), gpus(1, 1)) == []
    (said,) = checked(workload(*RAY, PAIRS, tf32, "training.fuse=2"), gpus(1, 1))
    assert said.startswith("training.fuse: in tf32, and only there, a client's last bits may depend on")
