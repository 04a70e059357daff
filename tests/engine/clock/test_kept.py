"""A run keeps its trace, and is resumed with no other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.schema import Workload

Make = Callable[..., Workload]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "night.csv").write_text("client,from_s,to_s\nB,0,4\n")
    return tmp_path / "night.csv"


@pytest.mark.slow
def test_a_run_keeps_its_trace(workload: Make, tmp_path: Path, trace: Path) -> None:
    keys = ("training.rounds=1", "time={latency_s: 1}", f"time.available.trace={trace}")
    done = run(workload(*keys), tmp_path / "run")
    assert (done.path / "trace.csv").read_text() == trace.read_text()
    trace.write_text("client,from_s,to_s\nB,0,9\n")
    more = (*keys, "training.rounds=2")
    with pytest.raises(InputError, match=r"^time.available.trace: is not what it was when .* set it to .*trace.csv$"):
        run(workload(*more), done.path, resume=True)
    trace.unlink()
    with pytest.raises(InputError, match=r"^time.available.trace: is not what it was when .*"):
        run(workload(*more), done.path, resume=True)
    copy = f"time.available.trace={done.path / 'trace.csv'}"
    assert len(run(workload(*more, copy), done.path, resume=True).rounds) == 2
    moved = Run(done.path.rename(tmp_path / "moved"))
    assert moved.workload.time is not None
    assert moved.workload.time.available.trace == tmp_path / "moved/trace.csv"


def test_a_run_that_has_begun_takes_no_trace(workload: Make, tmp_path: Path, trace: Path) -> None:
    keys = ("training.rounds=1", "time={latency_s: 1}")
    done = run(workload(*keys), tmp_path / "run")
    with pytest.raises(InputError, match=r"^time.available.trace: .* began without it"):
        run(workload(*keys, f"time.available.trace={trace}"), done.path, resume=True)
