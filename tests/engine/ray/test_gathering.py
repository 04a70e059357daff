"""Nodes that are waited for, on a cluster whose real autoscaler starts and ends real raylets."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from fedsim.engine.record.run_directory import Run
from fedsim.workload.schema import Workload
from tests.conftest import COMMAND
from tests.engine.conftest import assert_same

from .autoscaled import growing

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]

ALIVE = """
import os, ray
ray.init(os.environ["ADDRESS"], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
"""


@pytest.fixture(scope="module")
def keys() -> Iterator[dict[str, str]]:
    with growing(2) as keys:
        yield keys


@pytest.fixture(autouse=True)
def _one_by_one(keys: dict[str, str]) -> None:
    """Each test begins when the cluster has shrunk to its head."""
    shrunk(keys)


def shrunk(keys: dict[str, str]) -> None:
    deadline = time.monotonic() + 120
    while alive(keys) != 1:
        assert time.monotonic() < deadline


def alive(keys: dict[str, str]) -> int:
    """How many nodes there are; 0 before the cluster answers."""
    words = [sys.executable, "-c", ALIVE]
    done = subprocess.run(words, env={**os.environ, **keys}, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def fedsim(keys: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    call = [*COMMAND, *words, "--address", keys["ADDRESS"]]
    return subprocess.run(call, env={**os.environ, **keys}, capture_output=True, text=True, check=False)


def test_a_run_asks_for_its_nodes_and_gives_them_back(
    keys: dict[str, str], simulate: Callable[..., Run], workload: Callable[..., Workload], tmp_path: Path
) -> None:
    workload()
    settings = ["engine.backend=ray", "training.rounds=2", "engine.nodes=3", "engine.nodes_timeout_s=120"]
    words = [word for setting in settings for word in ("--set", setting)]
    plan = fedsim(keys, "plan", tmp_path / "small.yaml", *words)
    assert plan.returncode == 0, plan.stderr
    assert alive(keys) == 1  # a plan waits for none
    done = fedsim(keys, "run", tmp_path / "small.yaml", *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "waits for 2 of 3 nodes, for at most 2 min 0 s (engine.nodes_timeout_s)" in done.stderr
    assert_same(Run(tmp_path / "run"), simulate("training.rounds=2"))
    shrunk(keys)


def test_points_of_a_study_ask_for_as_many_as_they_need(
    keys: dict[str, str], workload: Callable[..., Workload], tmp_path: Path
) -> None:
    workload()
    study = {
        "name": "grown", "kind": "scaling-strong", "workload": "small.yaml", "nodes": [1, 3], "methods": {"fedavg": {}},
        "set": {"training.rounds": 1, "engine.backend": "ray", "engine.clients_per_actor": "auto",
                "engine.nodes_timeout_s": 120},
        "seeds": [1],
    }  # fmt: skip
    (tmp_path / "grown.yaml").write_text(json.dumps(study))  # JSON is YAML
    done = fedsim(keys, "study", tmp_path / "grown.yaml", "--out", tmp_path / "grown")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("waits for 2 of 3 nodes") == done.stderr.count("waits for") == 1
    runs = pd.read_parquet(tmp_path / "grown" / "results.parquet")
    assert sorted(set(runs["nodes"])) == [1, 3]


def test_more_than_the_cluster_can_have_are_refused_in_time(
    keys: dict[str, str], workload: Callable[..., Workload], tmp_path: Path
) -> None:
    workload()
    settings = ["engine.backend=ray", "engine.nodes=9", "engine.nodes_timeout_s=3"]
    words = [word for setting in settings for word in ("--set", setting)]
    done = fedsim(keys, "run", tmp_path / "small.yaml", *words, "--out", tmp_path / "run")
    assert done.returncode == 2
    there = r"engine\.nodes: 9, and the Ray cluster has \d after 3 s; lower it, or add nodes to the cluster"
    assert re.fullmatch(f"fedsim: {there}", done.stderr.splitlines()[-1])
    assert not (tmp_path / "run").exists()
