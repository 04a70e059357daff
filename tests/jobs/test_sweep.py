"""The scripts in workloads/ that submit a sweep: they do what they say on a real cluster, and nothing twice."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from .conftest import SCRIPT, Cluster

WORKLOADS = SCRIPT.parents[1] / "workloads"


@pytest.mark.long
def test_a_sweep_from_python_and_from_the_shell(cluster: Cluster, workload: Path, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def call(*command: str | Path) -> str:
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    sweep = [sys.executable, WORKLOADS / "sweep.py", "--workload", workload, "--set-axis", "algorithm.beta=0,1"]
    first = call(*sweep)
    assert first.count("submitted to local") == 2
    table = pd.read_parquet(tmp_path / "runs" / "sweep" / "sweep.parquet")
    assert set(table["algorithm.beta"]) == {0, 1}
    again = call(*sweep)
    assert "submitted" not in again
    assert again.count("is done already") == 2
    call("bash", WORKLOADS / "sweep.sh", "local", workload, "algorithm.beta=0,0.1")
    assert "beta=0.1" in (tmp_path / "runs" / "sweep" / "tables" / "psnr.csv").read_text()
