"""Every actor gets its share of the GPUs that there are, however few; Ray is told of GPUs that nothing uses."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedsim.cli.plan_tables import plan_tables
from fedsim.engine.federation import assemble, clients_per_site
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.place.placement import Placement, device_of, placed, unplaced
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload, read_yaml
from fedsim.workload.schema import Workload
from tests.engine.plans import GB, MakeWorkload, checked, machine, node, planned

WORKLOADS = sorted((Path(__file__).parents[3] / "workloads").glob("*.yaml"))
RAY = "engine.backend=ray"


def workloads_of(path: Path) -> list[Workload]:
    """A workload, or one for each regime of a study."""
    if "kind" not in read_yaml(path):
        return [load_workload(path)]
    plan = load_study(path)
    points = {
        pair[0]: point for pair, point in zip(plan.pairs, plan.finals(dict.fromkeys(plan.pairs, 0)), strict=False)
    }
    return [point.workload for point in points.values()]


def clients_of(workload: Workload, like: ClientSpec) -> list[ClientSpec]:
    """The workload's clients, with some other client's data."""
    sites = workload.federation.expanded_sites()
    counts = clients_per_site(workload.federation.clients, len(sites))
    return [
        replace(like, name=f"{site.name}-{number}", site=site.name, resources=site.resources)
        for site, count in zip(sites, counts, strict=True)
        for number in range(count)
    ]


def has_a_share(placement: Placement) -> bool:
    return 1e-4 <= placement.gpus <= 1


@pytest.mark.slow
@pytest.mark.parametrize("path", WORKLOADS, ids=lambda path: path.stem)
def test_no_workload_is_refused_for_want_of_gpus(path: Path, workload: MakeWorkload) -> None:
    like = assemble(workload()).clients[0]
    for load in workloads_of(path):
        engine = load.engine.model_copy(update={"backend": "ray", "cores": None, "nodes": None})
        clients = clients_of(load, like)
        for gpus in (1, 2, 8):
            nodes = [node("here", gpus=gpus)]
            placements = placed(engine, clients, nodes)
            assert unplaced(placements, nodes) == []
            assert all(map(has_a_share, placements))
            assert sum(len(placement.clients) for placement in placements) == len(clients)


@pytest.mark.parametrize(
    ("size", "gpus", "share"), [(1, 1, 0.25), (2, 1, 0.5), (1, 2, 0.5), (1, 8, 1), ("auto", 1, 0.25)]
)
def test_actors_share_gpus_equally(workload: MakeWorkload, size: int | str, gpus: int, share: float) -> None:
    load = workload(RAY, f"engine.clients_per_actor={size}")
    one_node = replace(machine(), nodes=machine(gpus_one=gpus).nodes[:1])
    assert checked(load, one_node) == []
    plan = planned(load, one_node)
    assert {actor.placement.gpus for actor in plan.actors} == {share}
    actors = dict(zip(*(plan_tables(plan)[0].columns[at].cells for at in (0, 1)), strict=True))["actors"]
    assert f"each with {share:g} of a GPU" in str(actors)
    assert str(actors).endswith("(cuda)")


def test_what_is_asked_for_is_given_and_the_rest_shared(workload: MakeWorkload) -> None:
    """Site A's two clients ask for 0.4 each; B and C share the 0.2 that is left."""
    load = workload(RAY, "federation.sites.0.resources.gpus=0.4")
    nodes = [node("here", gpus=1)]
    placements = placed(load.engine, assemble(load).clients, nodes)
    assert [placement.gpus for placement in placements[:2]] == [0.4, 0.4]
    assert [placement.gpus for placement in placements[2:]] == [pytest.approx(0.0625, abs=1e-4)] * 2
    assert unplaced(placements, nodes) == []


def test_actors_are_on_nodes_that_have_gpus(workload: MakeWorkload) -> None:
    clients = assemble(workload()).clients
    nodes = [node("head"), node("worker", gpus=1)]
    for size in (1, "auto"):
        assert {
            placement.node
            for placement in placed(workload(RAY, f"engine.clients_per_actor={size}").engine, clients, nodes)
        } == {1}


@pytest.mark.parametrize("size", [1, "auto"])
def test_clients_take_turns_where_a_gpu_holds_few_actors(workload: MakeWorkload, size: int | str) -> None:
    """2.5 GB hold two actors."""
    load = workload(RAY, f"engine.clients_per_actor={size}")
    nodes = [node("here", gpus=1, gpu_memory=2.5 * GB)]
    placements = placed(load.engine, assemble(load).clients, nodes)
    assert [placement.gpus for placement in placements] == [0.5, 0.5]
    assert sum(len(placement.clients) for placement in placements) == 4


def test_torch_has_the_last_word_on_the_device(workload: MakeWorkload) -> None:
    """Ray may count GPUs that torch cannot use: they are reserved, and clients train on the CPU."""
    engine = workload(RAY).engine
    assert device_of(engine, [node("here", gpus=1)]) == "cuda"
    assert device_of(engine, [node("here", gpus=1, cuda=False)]) == "cpu"
    assert device_of(workload(RAY, "engine.device=cpu").engine, [node("here", gpus=1)]) == "cpu"


ONE_GPU = """
import sys, ray
from pathlib import Path
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation
from fedsim.workload.reading import load_workload
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
keys = ["engine.backend=ray", "engine.clients_per_actor=2", "training.rounds=1"]
with Simulation(load_workload(Path(sys.argv[1]), keys), sys.argv[2]) as simulation:
    simulation.run()
    print(Run(Path(sys.argv[2])).clients["pid"].nunique(), ray.available_resources().get("GPU", 0))
"""


@pytest.mark.ray
@pytest.mark.skipif(torch.cuda.is_available(), reason="shows a GPU that torch cannot use")
def test_a_run_with_one_gpu_that_torch_cannot_use(workload: MakeWorkload, tmp_path: Path) -> None:
    workload()
    ended = subprocess.run(
        [sys.executable, "-c", ONE_GPU, tmp_path / "small.yaml", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.strip().removesuffix(".0").endswith("2 0"), "two actors share the GPU: " + ended.stderr
    assert "cannot use the GPUs that Ray counts: clients train on the CPU" in ended.stderr
