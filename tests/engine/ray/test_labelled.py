"""Labels of real raylets: clients train where they ask to, with the same bits; a label that no node has is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsim.engine.record.run_directory import Run
from tests.conftest import COMMAND
from tests.engine.conftest import assert_same

from .raylets import cluster

pytestmark = [pytest.mark.ray, pytest.mark.long]

PLACED = """
import json, sys
from pathlib import Path
import ray
from fedsim.engine import simulation
from fedsim.engine.ray.backend import RayBackend
from fedsim.workload.reading import load_workload
made, found = [], {}
class Kept(RayBackend):
    def __init__(self, engine, address):
        super().__init__(engine, address)
        made.append(self)
def look(_row):
    labels = {node["NodeID"]: node["Labels"].get("zone", "") for node in ray.nodes()}
    found.update({client: labels[actor.node] for actor in made[0].actors for client in actor.clients})
simulation.make_backend = Kept
load = load_workload(Path(sys.argv[1]), json.loads(sys.argv[4]))
with simulation.Simulation(load, Path(sys.argv[2]), address=sys.argv[3]) as run:
    run.run(between=look)
    run.evaluate()
    print(json.dumps({"zones": found, "slots": made[0].slots()}))
"""
ZONES = ({"zone": "a"}, {"zone": "b", "rack": "7"})


def on(site: int, asked: str, **more: float) -> str:
    return f"federation.sites.{site}.resources={json.dumps({'labels': {'zone': asked}, **more})}"


@pytest.mark.parametrize(
    "keys",
    [
        (on(1, "b"), on(2, "in(a,b)")),
        (on(1, "b"), on(2, "in(a,b)"), "engine.clients_per_actor=auto"),
        (on(1, "b", memory=0.1), on(2, "in(a,b)", memory=0.1), "engine.clients_per_actor=2"),
    ],
    ids=["an actor a client", "packed", "where Ray chooses the node"],
)
def test_clients_train_on_nodes_with_their_labels(
    simulate: Callable[..., Run], workload: Callable[..., Any], tmp_path: Path, keys: tuple[str, ...]
) -> None:
    """Site A has two clients, B and C one each."""
    serial = simulate("training.rounds=2", *keys)
    workload()
    with cluster(*ZONES) as (_, environment):
        keys = ("training.rounds=2", "engine.backend=ray", *keys)
        told = [tmp_path / "small.yaml", tmp_path / "cluster", environment["ADDRESS"], json.dumps(keys)]
        done = subprocess.run(
            [sys.executable, "-c", PLACED, *told], env={**os.environ, **environment}, capture_output=True, text=True,
            check=False, timeout=240,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["slots"] == 3, "site A may train on any node"
    zones = {client.partition("-")[0]: zone for client, zone in found["zones"].items()}
    assert zones["B"] == "b"
    assert zones["C"] in {"a", "b"}
    assert_same(serial, Run(tmp_path / "cluster"))


@pytest.mark.timeout(900)
def test_only_nodes_that_carry_them_count_and_others_are_named(workload: Callable[..., Any], tmp_path: Path) -> None:
    workload()
    sites = [part for at in range(3) for part in ("--set", on(at, "b"))]
    with cluster(*ZONES) as (_, environment):

        def fedsim(command: str, *more: str | Path) -> subprocess.CompletedProcess[str]:
            keys = ["--set", "training.rounds=1", "--set", "engine.backend=ray", "--address", environment["ADDRESS"]]
            return subprocess.run(
                [*COMMAND, command, tmp_path / "small.yaml", *keys, *more], env={**os.environ, **environment},
                capture_output=True, text=True, check=False, timeout=240,
            )  # fmt: skip

        done = fedsim("run", *sites, "--out", tmp_path / "run")
        refused = fedsim("run", "--set", on(2, "c"), "--out", tmp_path / "none")
        plan = fedsim("plan", *sites)
    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "run").rounds["slots"].tolist() == [1]
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "fedsim: site C: resources.labels: zone=c, and Ray has 1 node without labels; 1 node with rack=7,zone=b; "
        "1 node with zone=a; ray start --labels gives a node some, and engine.backend serial needs none"
    )
    assert not (tmp_path / "none").exists()
    assert "zone=b for 4 clients, on 1 of 3 nodes" in " ".join(plan.stdout.split())
