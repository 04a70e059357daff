"""Every actor gets its share of the GPUs that there are, however few; Ray is told of GPUs that nothing uses."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import torch

from fedsim.cli.plan_tables import plan_tables
from fedsim.core.errors import InputError
from fedsim.engine.clients.sequence import Listed
from fedsim.engine.federation import Federation, assemble
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.training import make_learner
from fedsim.engine.place.machine import Machine
from fedsim.engine.place.placement import device_of, placed, unplaced
from fedsim.engine.plan.fits import refuse
from fedsim.engine.plan.plan import make_plan
from fedsim.engine.record.run_directory import setup_of
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload, read_yaml
from fedsim.workload.schema import Workload
from tests.conftest import COMMAND
from tests.engine.plans import GB, MakeWorkload, checked, machine, node, planned

WORKLOADS = sorted((Path(__file__).parents[3] / "workloads").glob("*.yaml"))
RAY = "engine.backend=ray"


def workloads_of(path: Path) -> list[Workload]:
    """A workload, or one for each regime of a study."""
    if "kind" not in read_yaml(path):
        return [load_workload(path)]
    plan = load_study(path)
    points = {case.regime: point for case, point in zip(plan.cases, plan.examples(), strict=False)}
    return [point.workload for point in points.values()]


def federation_of(workload: Workload, like: ClientSpec) -> Federation:
    """The workload's clients with their matrices, each with 64 training slices of some other client's volume."""
    sites = workload.federation.expanded_sites()
    names = workload.federation.client_names()
    data = like.data.members[0]
    pieces, supports = (replace(data.pieces[0], start=0, stop=64),), data.supports[:1]
    matrices = [site.matrix or workload.federation.matrix for site in sites]
    own = [replace(data, pieces=pieces, supports=supports, matrix=matrix) for matrix in matrices]
    clients = [
        ClientSpec(
            name=f"{site.name}-{number}", site=site.name, data=slices, training=workload.training_of(site),
            resources=site.resources,
        )
        for site, slices in zip(sites, own, strict=True)
        for number in range(names.of_site(site.name))
    ]  # fmt: skip
    return Federation(
        clients=Listed(clients), unseen=(), manifest=pd.DataFrame({"site": [], "subject": [], "subject_from": []})
    )


def with_gpus(count: int, size: float) -> Machine:
    """One node with 16 cores and so many GPUs of this memory [GB]."""
    here = node(
        "here",
        16,
        gpus=count,
        gpu_memory=size * GB if count else math.inf,
        actor_memory=180 * GB,
        total_memory=256 * GB,
    )
    return replace(machine(), nodes=(here,))


TOO_LARGE = {("paper-scenario-1", 8)}
"""A batch of 32 slices of 256 x 256 in two domains takes 15 GB."""


@pytest.mark.slow
@pytest.mark.parametrize("path", WORKLOADS, ids=lambda path: path.stem)
def test_any_workload_runs_on_any_number_of_gpus_of_any_size(path: Path, workload: MakeWorkload) -> None:
    """Every client has one place, every GPU holds what its actors need, and none is refused but what cannot fit."""
    like = assemble(workload()).clients[0]
    for given in workloads_of(path):
        engine = given.engine.model_copy(update={"backend": "ray", "cores": None, "nodes": None})
        load = given.model_copy(update={"engine": engine}).settled()
        federation, learner = federation_of(load, like), make_learner(setup_of(load))
        for gpus, size in product((0, 1, 2, 8), (8, 24, 80)):
            plan = make_plan(load, federation, learner, None, with_gpus(gpus, size))
            placements = [actor.placement for actor in plan.actors]
            assert sorted(client.name for one in placements for client in one.clients) == sorted(federation.names)
            assert plan.device == ("cuda" if gpus else "cpu")
            if gpus and (path.stem, size) in TOO_LARGE:
                with pytest.raises(InputError, match=r"^training\.batch_size: .* need 1.* GB of a GPU"):
                    refuse(plan)
            elif gpus:
                assert unplaced(placements, plan.machine.nodes) == []
                assert plan.gpu is not None
                assert all(plan.gpu.total <= placement.gpus * size * GB for placement in placements)


@pytest.mark.parametrize(
    ("size", "gpus", "share"), [(1, 1, 0.25), (2, 1, 0.5), (1, 2, 0.5), (1, 8, 1), ("auto", 1, 0.5), ("auto", 8, 1)]
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


@pytest.mark.parametrize(("fuse", "actors"), [(1, 2), (2, 2), (3, 2), (4, 1), (8, 1)])
def test_no_more_actors_than_fill_the_rows_of_fused_networks(workload: MakeWorkload, fuse: int, actors: int) -> None:
    """Four clients: on two GPUs and on two nodes alike."""
    load = workload(RAY, "engine.clients_per_actor=auto", f"training.fuse={fuse}")
    clients = assemble(load).clients
    assert len(placed(load.engine, clients, [node("here", 2, gpus=2)])) == actors
    assert len(placed(load.engine, clients, [node("here", 1), node("there", 1)])) == actors


@pytest.mark.parametrize(
    ("asked", "actors", "reserved"), [(1, 1, 1), (0.5, 2, 0.5), (0.25, 2, 0.3158), (0.1, 2, 0.3158)]
)
def test_actors_that_ask_for_a_share_take_turns_too(
    workload: MakeWorkload, asked: float, actors: int, reserved: float
) -> None:
    """Where the share that is asked for does not hold 3 of 10 GB, what it needs is reserved."""
    load = workload(RAY, *(f"federation.sites.{site}.resources.gpus={asked}" for site in range(3)))
    nodes = [node("here", gpus=1, gpu_memory=10 * GB)]
    placements = placed(load.engine, assemble(load).clients, nodes, 3 * GB)
    assert unplaced(placements, nodes) == []
    assert [placement.gpus for placement in placements] == [pytest.approx(reserved)] * actors


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
asking = [f"federation.sites.{site}.resources.gpus=1" for site in range(3)]
for name, more in {"shared": [], "in-turn": asking}.items():
    out = Path(sys.argv[2]) / name
    keys = ["engine.backend=ray", "engine.clients_per_actor=1", "training.rounds=1", *more]
    with Simulation(load_workload(Path(sys.argv[1]), keys), out) as simulation:
        simulation.run()
        clients = Run(out).clients
        print(name, len(clients), clients["pid"].nunique(), int(ray.available_resources().get("GPU", 0)))
"""


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="shows a GPU that torch cannot use")
def test_runs_with_one_gpu_that_torch_cannot_use(workload: MakeWorkload, tmp_path: Path) -> None:
    """Four clients with an actor each: two share the GPU, as there are two cores; those that ask for it take turns."""
    workload()
    ended = subprocess.run(
        [sys.executable, "-c", ONE_GPU, tmp_path / "small.yaml", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.splitlines()[-2:] == ["shared 4 2 0", "in-turn 4 1 0"], ended.stderr
    assert "cannot use the GPUs that Ray counts: clients train on the CPU" in ended.stderr


@pytest.mark.long
def test_a_run_on_gpus_that_are_hidden_is_refused(workload: MakeWorkload, tmp_path: Path) -> None:
    workload()
    command = [*COMMAND, "run", tmp_path / "small.yaml", "--set", "engine.device=cuda", "--out", tmp_path / "run"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=hidden, capture_output=True, text=True, check=False)
    said = "needs a GPU, and there is none (here CUDA_VISIBLE_DEVICES='' hides all others); set it to auto or cpu"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"fedsim: engine.device: cuda {said}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("shown", "said"), [("", "''"), ("-1", "'-1'"), (None, "")])
def test_what_hides_gpus_is_said(
    workload: MakeWorkload, monkeypatch: pytest.MonkeyPatch, shown: str | None, said: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    hint = f" (here CUDA_VISIBLE_DEVICES={said} hides all others)" if said else ""
    with pytest.raises(InputError) as error:
        checked(workload("engine.backend=ray", "engine.device=cuda"), machine())
    assert str(error.value) == f"engine.device: cuda needs a GPU, and there is none{hint}; set it to auto or cpu"
