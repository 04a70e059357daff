"""What training leaves of a GPU is divided between private state and slices."""

from dataclasses import replace

import pytest

from fedsim.engine.host.messages import Limits
from tests.engine.plans import GB, TINY, MakeWorkload, P, Q, machine, planned

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
