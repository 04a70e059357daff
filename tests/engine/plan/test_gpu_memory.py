"""What training leaves of a GPU is divided between private state and slices."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.table import Table

from fedsim.cli.plan_tables import plan_tables
from fedsim.core.errors import InputError
from fedsim.core.text import bytes_text
from fedsim.data.samples import training_bytes
from fedsim.engine.federation import assemble
from fedsim.engine.host.messages import Limits
from fedsim.engine.host.training import make_learner
from fedsim.engine.place.gpus import Gpu, driver_version, gpus_text
from fedsim.engine.place.machine import Machine
from fedsim.engine.plan.calibration import calibrate
from fedsim.engine.plan.memory import gpu_needs
from fedsim.engine.record.run_directory import setup_of
from tests.engine.plans import GB, TINY, MakeWorkload, P, Q, checked, machine, planned, times

KEYS = (*TINY, "engine.backend=ray", "engine.clients_per_actor=auto")
STATE = 4 * (2 * Q + P + 2)


@pytest.mark.parametrize(
    ("limits", "usable", "states", "slices"),
    [
        (Limits(work_bytes=1), 10, 4, 5),
        (Limits(work_bytes=1, gpu_share=0.5), 10, 2, 2),
        (Limits(work_bytes=1, gpu_share=2), 10, 4, 5),
        (Limits(work_bytes=1, device_bytes=6), 10, 6, 3),
        (Limits(work_bytes=1, device_bytes=6, gpu_share=0.5), 10, 2.8, 1.2),
        (Limits(work_bytes=8), 10, 1.4, 0.6),
        (Limits(work_bytes=12), 10, 0, 0),
        (Limits(work_bytes=1, slice_bytes=3), 10, 4, 3),
    ],
)
def test_private_state_and_slices_take_what_training_leaves(
    limits: Limits, usable: float, states: float, slices: float
) -> None:
    found = limits.on_gpu(usable)
    assert (found.device_bytes, found.slice_bytes) == (pytest.approx(states), pytest.approx(slices))


def test_state_is_on_the_gpu_then_in_memory_then_on_disk(workload: MakeWorkload) -> None:
    """Two actors with two clients each; each GPU's half has room for one state, and the node for one of each actor."""
    one = replace(machine(), nodes=machine(gpus_one=1, gpu_memory=8 * GB).nodes[:1])
    room = ("engine.device_memory", "engine.state_memory")
    tight = planned(workload(*KEYS, *(f"{key}={3 * STATE / GB}" for key in room), "engine.slice_memory=0"), one)
    assert [(a.gpu_state_bytes, a.state_bytes, a.scratch_bytes) for a in tight.actors] == [(STATE, STATE, 0)] * 2
    roomy = planned(workload(*KEYS), one)
    assert [actor.gpu_state_bytes for actor in roomy.actors] == [2 * STATE] * 2
    (needs,) = roomy.nodes
    assert (needs.state_bytes, needs.slice_bytes) == (0, 0), "slices lie on the GPU too"
    assert all(actor.slice_bytes > 0 and not actor.unkept for actor in roomy.actors)


def cells(table: Table) -> dict[str, list[str]]:
    """The rows of a table by their first column."""
    return {name: list(map(str, row)) for name, *row in zip(*(column.cells for column in table.columns), strict=True)}


def test_a_plan_shows_the_gpus_what_an_actor_takes_of_them_and_turns(workload: MakeWorkload) -> None:
    there = machine(gpus_one=2, gpus_two=1, gpu_memory=8 * GB)
    named = replace(there, nodes=(replace(there.nodes[0], gpu_name="A100"), there.nodes[1]))
    plan = planned(workload(*TINY, "engine.backend=ray", "training.fuse=2", "engine.threads=4"), named)
    runs, needs = (cells(table) for table in plan_tables(plan)[:2])
    assert runs["GPUs"][0].split("; ")[0] == "2 x A100 with 8 GB, 1 x GPU with 8 GB"
    assert runs["actors"][0].endswith("each with 1 of a GPU; 2 train at once (cuda)")
    assert plan.gpu is not None
    assert needs["memory of a GPU, for an actor"][1:] == ["7.6 GB", "1 of a GPU"]
    assert needs["  activations of 2 batches"][0] == f"[dim]{bytes_text(plan.gpu.activations)}"
    assert needs["  private state"][0] == f"[dim]{bytes_text(2 * STATE)}", "two clients': the last row of this name"
    unused = planned(workload(*KEYS, "engine.device=cpu"), named)
    assert cells(plan_tables(unused)[0])["GPUs"][0].endswith("; clients train on the CPU")


@pytest.mark.parametrize(
    ("keys", "turns"), [((), ", in 4 turns"), (("training.fuse=2",), ", in 2 turns"), (("training.fuse=4",), "")]
)
def test_a_plan_counts_turns(workload: MakeWorkload, keys: tuple[str, ...], turns: str) -> None:
    """One GPU that holds a single actor, with the four clients."""
    alone = replace(machine(), nodes=machine(gpus_one=1, gpu_memory=1.2 * GB).nodes[:1])
    actors = cells(plan_tables(planned(workload(*KEYS, *keys), alone))[0])["actors"][0]
    assert actors == f"1 with 4 clients on one node, each with 1 of a GPU; 1 train at once{turns} (cuda)"


@pytest.mark.parametrize(
    ("gpus", "cuda", "seconds"), [(1, True, 36.4), (2, True, 18.2), (4, True, 12.1), (1, False, 12.1)]
)
def test_actors_of_one_gpu_work_in_turn(workload: MakeWorkload, gpus: int, cuda: bool, seconds: float) -> None:
    """Four clients of 6.1 to 12.1 s on four cores."""
    here = replace(machine(gpus_one=gpus, gpu_memory=80 * GB).nodes[0], cuda=cuda)
    found = times(workload(*TINY, "engine.backend=ray"), replace(machine(), nodes=(here,)))
    assert found.round == pytest.approx(seconds)


def test_what_is_larger_than_a_gpu_is_refused_with_a_value_that_fits(workload: MakeWorkload) -> None:
    """1.1 GB leave 45 MB to training: enough for some fused clients, not for 1,000; 1 GB holds not even one."""
    many = (*KEYS, "training.fuse=1000")
    with pytest.raises(InputError) as refused:
        checked(workload(*many), machine(gpus_one=1, gpu_memory=1.1 * GB))
    found = re.fullmatch(
        r"training\.fuse: networks and batches of 1000 clients need .*; set it to (\d+) or less", str(refused.value)
    )
    assert found is not None
    fitting = int(found[1])
    assert fitting > 1
    assert len(checked(workload(*KEYS, f"training.fuse={fitting}"), machine(gpus_one=1, gpu_memory=1.1 * GB))) == 1, (
        "rows"
    )
    for keys in (many, KEYS):
        with pytest.raises(InputError, match=r"^training\.batch_size: a network and a batch need .* lower it, or"):
            checked(workload(*keys), machine(gpus_one=1, gpu_memory=1.0 * GB))
    assert checked(workload(*KEYS, "engine.device=cpu"), machine(gpus_one=1, gpu_memory=1.0 * GB)) == []


def four_kinds(per_actor: str) -> tuple[str, ...]:
    """Sites that differ in cores and memory."""
    apart = (f"federation.sites.{at}.resources={{cpus: 1, memory: 0.{at + 1}}}" for at in range(3))
    return (*TINY, "engine.backend=ray", f"engine.clients_per_actor={per_actor}", *apart)


@pytest.mark.parametrize("per_actor", ["1", "auto"])
def test_actors_of_different_needs_fit_on_a_gpu_together(workload: MakeWorkload, per_actor: str) -> None:
    """A GPU of 1.5 GB holds one actor; of 80 GB, all."""
    keys = four_kinds(per_actor)
    with pytest.raises(
        InputError, match=r"^resources: \d actors on a GPU need 1 GB each, and 1\.4\d* GB .*; give more"
    ):
        checked(workload(*keys), one_gpu(1.5))
    assert checked(workload(*keys), one_gpu(80)) == []


def one_gpu(size: float) -> Machine:
    """A machine with a GPU of so much memory [GB]."""
    return replace(machine(), nodes=machine(gpus_one=1, gpu_memory=size * GB).nodes[:1])


@pytest.mark.parametrize("per_actor", ["1", "auto"])
def test_two_kinds_divide_what_a_gpu_holds(workload: MakeWorkload, per_actor: str) -> None:
    """Two actors of the four clients, of either kind one; and no more than a GPU of 2.5 GB holds."""
    first = "federation.sites.0.resources={cpus: 1, memory: 0.1}"
    load = workload(*TINY, "engine.backend=ray", f"engine.clients_per_actor={per_actor}", first)
    assert checked(load, one_gpu(2.5)) == []
    placements = [actor.placement for actor in planned(load, one_gpu(2.5)).actors]
    assert [(len(placement.clients), placement.gpus) for placement in placements] == [(2, 0.5), (2, 0.5)]


def test_what_the_server_sends_and_states_on_their_way_need_room_too(workload: MakeWorkload) -> None:
    """FedMRI's exact negatives are the encoders of all clients; the clients that follow are loaded ahead."""
    needs = {}
    for name in ("fedavg", "fedmri"):
        load = workload(*TINY, f"algorithm.name={name}").settled()
        learner = make_learner(setup_of(load))
        needs[name] = gpu_needs(load.algorithm, learner, assemble(load).clients, load.model.smallest)
    assert needs["fedavg"].received == learner_bytes(workload, "fedavg")
    assert needs["fedmri"].received > 4 * learner_bytes(workload, "fedmri")


def learner_bytes(workload: MakeWorkload, name: str) -> int:
    """Size of the parameters that a method shares [bytes]."""
    return make_learner(setup_of(workload(*TINY, f"algorithm.name={name}").settled())).shared.nbytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures the memory of a GPU")
@pytest.mark.parametrize(
    "keys",
    [
        ("model={domain: image, channels: 8, pools: 3}", "training.fuse=1"),
        ("model={domain: image, channels: 8, pools: 3}", "training.fuse=8"),
        ("model={domain: dual, channels: 32, pools: 4}", "training.fuse=1"),
        ("model={domain: dual, channels: 32, pools: 4}", "training.fuse=2"),
    ],
)
def test_training_takes_no_more_of_a_gpu_than_planned(workload: MakeWorkload, keys: tuple[str, ...]) -> None:
    """All that torch takes from CUDA in two rounds, with the private state and the slices of those who train."""
    load = workload(*keys, "federation.matrix=[128, 128]", "federation.sites.1.matrix=null").settled()
    clients, learner = assemble(load).clients, make_learner(setup_of(load))
    needs = gpu_needs(load.algorithm, learner, clients, load.model.smallest)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    made = calibrate(load, clients, "cuda")
    slices = sum(map(training_bytes, made.client.data.members))
    kept = load.training.fuse * (made.private_bytes + slices)
    assert torch.cuda.max_memory_reserved() <= needs.total + kept


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86  Release Build\n", "570.86"),
        (None, ""),
    ],
)
def test_the_drivers_version_is_read(tmp_path: Path, text: str | None, version: str) -> None:
    file = tmp_path / "version"
    if text:
        file.write_text(text)
    assert driver_version(file) == version


def test_doctor_says_which_gpus_torch_can_use_or_why_none() -> None:
    one, two = Gpu("A", 8 * GB), Gpu("B", 80 * GB)
    torch_here = f"torch {torch.__version__}"
    assert gpus_text([one, two, one], "550.54", "12.8") == (
        f"2 x A with 8 GB, 1 x B with 80 GB; driver 550.54, {torch_here} for CUDA 12.8"
    )
    assert gpus_text([], "550.54", None).endswith("it is built without CUDA, and driver 550.54 is installed")
    assert gpus_text([], "", None) == f"none that {torch_here} can use: clients train on the CPU"
