"""fedsim watch: a run and a study followed from their folders."""

import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import fedsim
from fedsim.cli.watch_run import WatchedRun, spark_line
from fedsim.cli.watching import follow, watched
from fedsim.core.errors import DamagedError
from fedsim.core.text import precise_duration
from fedsim.engine.record.failures import Failure, Failures
from fedsim.engine.record.ledger import write_table
from fedsim.study.ended import write_failures
from fedsim.study.frozen import freeze
from fedsim.study.point import run_point
from fedsim.study.study import load_study
from tests.conftest import COMMAND

from .conftest import PAIR, SMALL, Fedsim


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run of three rounds."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(SMALL.format(cache=cache, root=folder))
    fedsim.run(fedsim.load_workload(folder / "small.yaml", ["training.rounds=3"]), folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")


def cut(run: Path, rounds: int) -> None:
    """Take a run back to where only so many of its rounds were done."""
    for name in ("rounds", "clients"):
        frame = pd.read_parquet(run / f"{name}.parquet")
        write_table(run / f"{name}.parquet", frame[frame["round"] <= rounds])
    for path in run.glob("checkpoints/round-*"):
        if int(path.name[-4:]) > rounds:
            shutil.rmtree(path)


def lines_of(subject: WatchedRun) -> list[str]:
    subject.look()
    return [" ".join(line.split()[:2]) for line in subject.news()]


@pytest.mark.slow
def test_a_run_of_another_process_is_followed_to_its_end(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    run, keys = tmp_path / "run", ["training.rounds=15", "time={mode: buffered, buffer: 1, latency_s: 3}"]
    code = f"import fedsim; fedsim.run(fedsim.load_workload('{workload}', {keys}), '{run}')"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while not (run / "workload.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    text = StringIO()
    follow(watched(run), Console(file=text, width=40))
    *lines, last = text.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f"{number}/15" for number in range(1, 16)]
    assert all("PSNR" in line and "  simulated " in line and line.endswith("left") for line in lines)
    assert last.startswith("done: 15 rounds, best round ")
    assert text.getvalue().replace("\n", "").isprintable(), "no control characters where there is no terminal"
    assert process.wait(timeout=60) == 0
    end = precise_duration(pd.read_parquet(run / "rounds.parquet")["virtual_s"].iloc[-1])
    assert f"  simulated {end}" in lines[-1]
    assert f"simulated   {end} so far" in fedsim("watch", run, "--once")[1]


@pytest.mark.slow
def test_the_present_state(fedsim: Fedsim, run: Path) -> None:
    status, out, err = fedsim("watch", run, "--once")
    best = pd.read_parquet(run / "rounds.parquet").set_index("round")["psnr"]
    assert (status, err) == (0, "")
    assert "round 3 of 3" in out
    assert f"round {best.idxmax()} with PSNR {best.max():.2f} dB" in out
    assert f"PSNR {best.iloc[-1]:.2f} dB  {spark_line(best.tolist())}" in out
    slowest = pd.read_parquet(run / "clients.parquet").query("round == 3").nlargest(1, "train_seconds")
    assert f"slowest     {slowest['client'].iloc[0]} " in out
    assert "failures" not in out
    Failures(run).note(
        [Failure(round=2, phase="train", client="B", kind="raised", action="dropped", message="as told")]
    )
    assert "1 dropped; last: B in round 2, raised" in fedsim("watch", run, "--once")[1]
    cut(run, 1)
    assert "round 1 of 3" in fedsim("watch", run, "--once")[1]
    (run / "rounds.parquet").unlink()
    assert "the first round is not in the ledger yet" in fedsim("watch", run, "--once")[1]


@pytest.mark.slow
def test_a_terminal_sees_one_table_that_changes(run: Path) -> None:
    text = StringIO()
    follow(watched(run), Console(file=text, force_terminal=True, width=100))
    assert "\x1b[" in text.getvalue()
    assert "round 3 of 3" in text.getvalue()


def test_rounds_come_once_and_again_when_they_are_done_again(run: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(run, tmp_path / "whole")
    cut(run, 2)
    subject = WatchedRun(run)
    assert lines_of(subject) == ["round 1/3", "round 2/3"]
    assert lines_of(subject) == []
    cut(run, 1)
    assert lines_of(subject) == []
    shutil.copytree(whole, run, dirs_exist_ok=True)
    assert lines_of(subject) == ["round 2/3", "round 3/3", "done: 3"]
    assert subject.done


@pytest.mark.slow
def test_more_rounds_of_a_run_that_goes_on_are_seen(fedsim: Fedsim, run: Path) -> None:
    subject = WatchedRun(run)
    assert lines_of(subject)[-1] == "done: 3"
    keys = ["--set", "training.rounds=4", "--set", "metrics.every=1"]
    assert fedsim("run", run / "workload.yaml", *keys, "--out", run, "--resume")[0] == 0
    assert lines_of(subject) == ["round 4/4", "done: 4"]


def test_a_file_that_cannot_be_read_is_looked_at_once_more(run: Path) -> None:
    subject, file = WatchedRun(run), run / "rounds.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    subject.look()
    file.write_bytes(whole)
    assert lines_of(subject)[:3] == ["round 1/3", "round 2/3", "round 3/3"]
    file.write_bytes(whole[:100])
    subject.look()
    with pytest.raises(DamagedError, match="is damaged"):
        subject.look()


@pytest.mark.slow
def test_a_study_is_counted_point_by_point(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    (tmp_path / "pair.yaml").write_text(PAIR)
    plan, folder = load_study(tmp_path / "pair.yaml"), tmp_path / "pair"
    freeze(plan, folder)
    first, second = plan.examples()
    subject = watched(folder)

    def news() -> str:
        subject.look()
        return " ".join(subject.news())

    assert news() == "points 0/2 finished, 0 running, 0 failed, 2 not started"
    run_point(first.workload, folder / first.folder, first.part, lambda: False)
    assert news() == "points 1/2 finished, 0 running, 0 failed, 1 not started"
    assert news() == ""
    run_point(second.workload, folder / second.folder, second.part, lambda: True)  # begins, and stops at once
    assert news() == "points 1/2 finished, 1 running, 0 failed, 0 not started"
    write_failures(folder, {second.label: "as told"})
    assert news() == "points 1/2 finished, 0 running, 1 failed, 0 not started  done"
    assert subject.done
    status, out, _ = fedsim("watch", folder, "--once")
    assert status == 0
    assert f"failed {second.label}: as told" in " ".join(out.split())
    write_failures(folder, {})
    run_point(second.workload, folder / second.folder, second.part, lambda: False)
    assert news() == "points 2/2 finished, 0 running, 0 failed, 0 not started  done"
    freeze(load_study(tmp_path / "pair.yaml", ["seeds=[1, 2]"]), folder)  # as a resumed study does
    assert news() == "points 2/4 finished, 0 running, 0 failed, 2 not started"
    assert not subject.done


def test_what_is_no_run_is_said_in_one_line(fedsim: Fedsim, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in {"none": "no such folder", "empty": "is neither a run nor a study; to watch"}.items():
        status, out, err = fedsim("watch", tmp_path / name)
        assert (status, out) == (2, "")
        assert err.startswith(f"fedsim: {tmp_path / name}: {reason}")
        assert err.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_leaves_the_run_alone(run: Path) -> None:
    cut(run, 2)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    heeded = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {COMMAND[-1]}"  # else inherited
    process = subprocess.Popen(
        [*COMMAND[:-1], heeded, "watch", run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert [process.stdout.readline().split()[1] for _ in range(2)] == ["1/3", "2/3"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "stopped watching" in err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_spark_line_has_a_bar_a_value() -> None:
    assert spark_line([1, 2, 3]) == "▁▅█"
    assert spark_line([5.0]) == "▁"
    assert len(spark_line(list(range(100)))) == 40
