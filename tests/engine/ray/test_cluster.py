"""A cluster of three raylets on this machine, started by somebody else and used with an address."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedsim.engine.record.run_directory import Run
from tests.conftest import COMMAND
from tests.engine.conftest import assert_same

from .raylets import cluster

pytestmark = pytest.mark.ray


@pytest.mark.long
def test_three_raylets_give_the_bits_of_one_process(simulate: Callable[..., Run], tmp_path: Path) -> None:
    serial = simulate("training.rounds=2")
    command = [*COMMAND, "run", tmp_path / "small.yaml"]
    keys = ["--set", "training.rounds=2", "--set", "engine.backend=ray", "--out", tmp_path / "cluster"]
    with cluster() as (_, environment):
        command += [*keys, "--address", environment["ADDRESS"]]
        subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=240)
    assert_same(serial, Run(tmp_path / "cluster"))
    assert pd.read_parquet(tmp_path / "cluster" / "clients.parquet")["pid"].nunique() == 4, "an actor a client"


@pytest.mark.long
def test_where_ray_does_not_start_one_line_says_so(tmp_path: Path) -> None:
    """With so little address space Ray's processes end at once, and it waits half a minute for them."""
    workload = tmp_path / "tiny.yaml"
    site = "{name: A, source: {format: phantom, subjects: 3, slices: 2, size: 32}}"
    workload.write_text(f"name: tiny\nfederation: {{cache: {tmp_path}, matrix: [32, 32], sites: [{site}]}}\n")
    command = [*COMMAND, "run", workload, "--set"]
    ended = subprocess.run(
        ["bash", "-c", 'ulimit -v 6000000; exec "$@"', "bash", *command, "engine.backend=ray"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert ended.stderr.startswith("fedsim: Ray did not start on this machine (")
    assert "engine.backend=serial" in ended.stderr
