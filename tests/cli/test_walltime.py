"""`--walltime` as a user meets it: a line and exit status 130 in time, and the run goes on from there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.engine.state.checkpoint import complete_rounds

Fedsim = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", ["run", "study"])
def test_a_time_that_is_none_is_one_line(fedsim: Fedsim, workload: Path, command: str, tmp_path: Path) -> None:
    said = "fedsim: --walltime 2h: is not a time; write H:MM:SS, say 2:00:00, or D-HH:MM:SS\n"
    assert fedsim(command, workload, "--walltime", "2h", "--out", "out") == (2, "", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_stops_in_time_and_goes_on(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    """A second is less than the margin: each session has one round, however fast it is."""
    status, _, err = fedsim("run", workload, "--out", "run", "--walltime", "0:01")
    assert status == 130
    assert complete_rounds(tmp_path / "run") == [1]
    warning, _, said = " ".join(err.split()).rpartition("give it more ")
    assert "WARNING --walltime: is shorter than a round, which takes " in warning
    assert said.startswith("stopped: another round takes up to ")
    assert said.endswith("of --walltime are left; resume with: fedsim run run/workload.yaml --out run --resume")
    status, out, err = fedsim("run", "run/workload.yaml", "--out", "run", "--resume", "--walltime", "1-00:00:00")
    assert (status, "report: run/report.html" in out) == (0, True), err
