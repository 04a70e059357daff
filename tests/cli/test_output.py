"""A terminal, a disk or a pipe that takes no output ends nothing; RUN/log.txt has it all the same."""

import io
import os
import sys
from pathlib import Path
from typing import TextIO

import pytest

from fedsim.cli import app as cli

from .conftest import Fedsim


def status_with(stdout: TextIO, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of a command that prints into `stdout`."""
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "argv", ["fedsim", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def closed_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full device", "closed pipe"])
def test_a_run_goes_on_without_its_output(
    kind: str, workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdout = Path("/dev/full").open("w", buffering=1) if kind == "full device" else closed_pipe()  # noqa: SIM115
    with stdout:
        assert status_with(stdout, monkeypatch, "run", workload, "--out", tmp_path / "run") == 0
    assert (tmp_path / "run" / "report.html").exists()
    lines = [line.split(" ", 2)[2] for line in (tmp_path / "run" / "log.txt").read_text().splitlines()]
    assert "begins" in lines
    assert [line.partition("  loss")[0] for line in lines if " loss " in line] == ["round 1/2", "round 2/2"]
    assert any(line.startswith("round 2, test: PSNR") or line.startswith("round 1, test: PSNR") for line in lines)
    said = "".join(capsys.readouterr().err.split())
    assert ("stdout:cannotbewritten(Nospaceleftondevice)" in said) == (kind == "full device")


@pytest.mark.slow
def test_what_a_terminal_cannot_show_becomes_a_question_mark(
    workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fedsim: Fedsim
) -> None:
    assert fedsim("run", workload, "--set", "training.rounds=1", "--out", tmp_path / "run")[0] == 0
    for encoding in ("latin-1", "ascii"):
        shown = io.BytesIO()
        assert status_with(io.TextIOWrapper(shown, encoding), monkeypatch, "evaluate", tmp_path / "run") == 0
        assert " ? " in shown.getvalue().decode(encoding)


def test_a_closed_output_is_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "argv", ["fedsim", "schema"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code


@pytest.mark.slow
def test_the_log_is_appended_to_and_says_why_a_run_ended(workload: Path, tmp_path: Path, fedsim: Fedsim) -> None:
    status, _, _ = fedsim("run", workload, "--set", "faults=[{kind: raise, client: A, round: 2}]", "--out", "run")
    assert status == 1
    log = tmp_path / "run" / "log.txt"
    before = log.read_text()
    assert "ended by ClientError: client A, round 2" in before
    assert "Traceback" in before
    assert fedsim("run", "run/workload.yaml", "--out", "run", "--resume")[0] == 1
    assert log.read_text().startswith(before)
    assert "resumes after round 1" in log.read_text()[len(before) :]


@pytest.mark.slow
def test_forced_colours_do_not_make_a_terminal(
    workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fedsim: Fedsim
) -> None:
    """As in a notebook: nothing is drawn over, and every round is a line."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    status, out, err = fedsim("run", workload, "--set", "training.rounds=1", "--out", tmp_path / "run")
    assert status == 0
    assert "\x1b[2K" not in out + err
    assert "round 1/1" in out
