"""One client's step of a run again, from the command line; and what the command line says of a client that fails."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import COMMAND

Fedsim = Callable[..., tuple[int, str, str]]
FAULT = ("--set", "faults=[{kind: raise, client: B, round: 2}]")


@pytest.mark.slow
def test_a_step_again_has_the_loss_of_the_run(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    fedsim("run", workload, "--out", tmp_path / "run")
    rows = pd.read_parquet(tmp_path / "run" / "clients.parquet").set_index(["round", "client"])
    status, out, err = fedsim("debug", tmp_path / "run", "--client", "B", "--round", "2")
    assert (status, err) == (0, "")
    assert f"loss {rows.loc[(2, 'B'), 'loss']:.6g} (in the run: {rows.loc[(2, 'B'), 'loss']:.6g})" in out
    status, old, err = fedsim("replay", tmp_path / "run", "--client", "B", "--round", "2")
    assert (status, err) == (0, "")
    assert old.partition("loss")[2] == out.partition("loss")[2], "its old name still works"
    assert "replay" not in fedsim("--help")[1]


def test_a_client_that_fails_shows_its_traceback_and_how_to_look_into_it(
    fedsim: Fedsim, workload: Path, tmp_path: Path
) -> None:
    status, _, err = fedsim("run", workload, "--out", tmp_path / "run", *FAULT)
    assert status == 1
    *trace, last = err.strip().splitlines()
    assert "Traceback (most recent call last):" in trace
    assert last.startswith("fedsim: client B, round 2, seed 0: InjectedError: a fault of the workload")
    command = last.partition("to reproduce it: ")[2].split()
    assert command[0] == "fedsim"
    status, _, err = fedsim(*command[1:])
    assert status == 1
    assert err.strip().splitlines()[-1].startswith("fedsim: client B, round 2, seed 0: InjectedError")


@pytest.mark.slow
def test_the_debugger_stops_where_the_client_failed(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    fedsim("run", workload, "--out", tmp_path / "run", *FAULT)
    command = [*COMMAND, "debug", tmp_path / "run", "--pdb"]
    debugged = subprocess.run(
        [*command, "--client", "B", "--round", "2"],
        input="p self.kind\nq\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert debugged.returncode == 1
    assert "-> raise InjectedError" in debugged.stdout
    assert "(Pdb) 'raise'" in debugged.stdout


@pytest.mark.slow
def test_steps_that_cannot_be_done_again(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fedsim("run", workload, "--out", run)
    for arguments, message in (
        (("--client", "X", "--round", "1"), "--client X: the run's clients are A, B"),
        (("--client", "A", "--round", "7"), "--round 7: needs the checkpoint before it; rounds that have one: 1, 2, 3"),
        (("--client", "A", "--round", "0"), "--round"),
    ):
        status, _, err = fedsim("debug", run, *arguments)
        assert status == 2
        assert message in err
        assert err.count("\n") == 1
    assert fedsim("debug", tmp_path, "--client", "A", "--round", "1")[0] == 2
