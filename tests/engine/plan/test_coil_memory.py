"""The plan's memory of raw data follows coils, matrix, batch and network."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedsim.algorithms.learner import Learner
from fedsim.engine.federation import assemble
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.training import make_learner
from fedsim.engine.plan.memory import LIBRARIES, activation_bytes, step_bytes
from fedsim.engine.record.run_directory import setup_of
from fedsim.engine.simulation import run
from fedsim.models.reconstruction import UNetModel
from fedsim.workload.schema import Workload
from tests.engine.plans import planned

NETWORKS: dict[str, dict[str, Any]] = {
    "varnet": {"cascades": 2, "channels": 4, "pools": 2, "sensitivity_channels": 4, "sensitivity_pools": 2},
    "modl": {"iterations": 2, "channels": 8, "layers": 3},
    "unet": {"domain": "dual", "channels": 4, "pools": 2},
}


ON_ACTORS: dict[str, tuple[dict[str, Any], int]] = {
    "varnet": ({"cascades": 4, "channels": 8, "pools": 3, "sensitivity_channels": 4, "sensitivity_pools": 3}, 4),
    "modl": ({"iterations": 4, "channels": 32}, 2),
    "unet image": ({"domain": "image"}, 8),
    "unet complex": ({"domain": "complex"}, 8),
    "unet kspace": ({"domain": "kspace", "channels": 16}, 2),
    "unet dual": ({"domain": "dual", "channels": 16}, 2),
}
"""Networks whose steps take some 100 MB, and slices in a batch."""


def raw(
    cache: Path,
    name: str,
    side: int = 32,
    batch: int = 2,
    coils: tuple[int, ...] = (3, 7),
    size: int = 32,
    slices: int = 2,
) -> Workload:
    """Two sites, of 3 and of 7 coils, or others."""
    source = {"format": "phantom", "subjects": 3, "slices": slices, "size": size}
    return Workload.model_validate({
        "name": "raw",
        "federation": {
            "cache": cache,
            "matrix": (side, side),
            "coils": "keep",
            "split": {"train": 0.34, "val": 0.33, "test": 0.33},
            "sites": [{"name": f"S{number}", "source": source | {"coils": number}} for number in coils],
        },
        "model": {"name": name, **NETWORKS[name]},
        "algorithm": {"name": "fedavg"},
        "training": {"rounds": 1, "batch_size": batch},
        "engine": {"backend": "serial"},
    })  # fmt: skip


def kept(learner: Learner, client: ClientSpec, batch: int) -> int:
    """What autograd keeps of a batch of the client's own slices [bytes]."""
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    one = next(client.data.batches(batch, torch.Generator().manual_seed(0)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.network(*one.inputs)
    for vector in (learner.shared, learner.local, learner.shared_buffers):
        found.pop(vector.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("side", "batch"), [(32, 2), (48, 1)])
def test_steps_follow_coils_matrix_batch_and_network(cache: Path, name: str, side: int, batch: int) -> None:
    """Of activations counted on a slice of the fewest and one of the most coils; some more is what training takes."""
    load = raw(cache, name, side, batch).settled()
    learner, clients = make_learner(setup_of(load)), assemble(load).clients
    said = step_bytes(learner, load.model.smallest, clients)
    factors = [said(client) / kept(learner, client, batch) for client in clients]
    assert factors == pytest.approx([factors[0]] * 2, rel=0.05)
    assert 1.0 < factors[0] < 2.0


def test_shards_of_several_coils_hold_their_maps_too(tmp_path: Path) -> None:
    load = raw(tmp_path, "modl")
    plan = planned(load)
    for client in assemble(load).clients:
        for member in client.data.members:
            member.open()
    assert plan.cache_bytes == pytest.approx(sum(file.stat().st_size for file in tmp_path.rglob("*.h5")), rel=0.1)


def test_processes_of_a_node_share_libraries(cache: Path) -> None:
    load = raw(cache, "modl")
    serial, ray = (
        planned(load.model_copy(update={"engine": load.engine.model_copy(update={"backend": backend})}))
        for backend in ("serial", "ray")
    )
    first, second = (sum(node.process_bytes for node in plan.nodes) for plan in (serial, ray))
    assert len(ray.actors) == 2 * len(serial.actors) == 2
    assert [node.actors for node in ray.nodes] == [1, 1]
    alone = first - LIBRARIES
    assert alone < second - 1.5 * LIBRARIES < 2 * alone


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", ON_ACTORS)
def test_an_actor_takes_what_the_plan_says(cache: Path, tmp_path: Path, name: str) -> None:
    """With 8 coils at 128 pixels; what it has after its training is its peak, since hosts keep what they freed."""
    keys, batch = ON_ACTORS[name]
    load = raw(cache, name.split(maxsplit=1)[0], 128, batch, coils=(8,), size=128, slices=batch)
    model = type(load.model).model_validate({"name": load.model.name, **keys})
    engine = load.engine.model_copy(update={"backend": "ray"})
    load = load.model_copy(update={"model": model, "engine": engine})
    (needs,) = (one for one in planned(load).nodes if one.actors)
    libraries = LIBRARIES / 2  # which the driver shares
    said = needs.process_bytes - libraries + needs.state_bytes + needs.slice_bytes
    assert said == pytest.approx(run(load, tmp_path / "run").clients["memory_bytes"].max(), rel=0.2)


@pytest.mark.parametrize("domain", ["image", "complex"])
def test_coils_that_are_combined_before_a_network_take_no_more(domain: str) -> None:
    model = UNetModel.model_validate({"domain": domain, "channels": 4, "pools": 2})
    learner = Learner(model.build(torch.Generator().manual_seed(0)), lambda name: True)
    assert activation_bytes(learner, 32, coils=8) == activation_bytes(learner, 32)
