"""One writer for one folder: who is first, who is refused, who may succeed whom."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedsim.core.errors import InputError, RunError
from fedsim.core.files import lease
from fedsim.engine.record import claim
from fedsim.engine.record.claim import LOCK, Claim, claim_numbered
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation, run
from fedsim.workload.schema import Workload

# A process that claims a folder, says so, and holds it until it is killed.
HOLD = """
import sys, time
from pathlib import Path
from fedsim.engine.record.claim import Claim
claim = Claim(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_runs_that_start_together_get_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: claim_numbered(tmp_path / "runs" / "small"), range(8)))
    assert {one.folder.name for one in claims} == {"small", *(f"small-{number}" for number in range(2, 9))}
    for one in claims:
        one.release()
    assert list(tmp_path.glob("runs/*")) == [], "nothing was begun, and nothing is left"


@pytest.mark.slow
def test_a_second_writer_is_refused_and_a_dead_one_succeeded(tmp_path: Path, workload: Callable[..., Workload]) -> None:
    folder, small = tmp_path / "run", workload("training.rounds=1")
    run(small, folder)
    holder = hold(folder)
    try:
        said = rf"process {holder.pid} on \S+, running since .* is writing there; wait for it, stop it, or choose"
        for resume in (True, False):
            with pytest.raises(InputError, match=said):
                Simulation(small, folder, resume=resume)
        with Simulation(small, folder, resume=True, writes=False) as simulation:
            assert simulation.debug("A.1", 1)["steps"] > 0, "who only looks may look"
    finally:
        holder.kill()
        holder.communicate()
    assert (folder / LOCK).exists(), "it was killed"
    run(small, folder, resume=True)
    assert not (folder / LOCK).exists()


def test_the_number_of_a_dead_process_may_be_another_ones(tmp_path: Path) -> None:
    with Claim(tmp_path / "run") as mine:
        (mine.folder / "kept").touch()
        text = (mine.folder / LOCK).read_text()
    start = re.search(r"start=(\d+)", text)
    assert start is not None
    (mine.folder / LOCK).write_text(text.replace(start[1], str(int(start[1]) - 1)))  # of an earlier process
    with Claim(mine.folder):
        pass


@pytest.mark.slow
def test_a_silent_holder_elsewhere_is_succeeded_and_one_that_is_heard_of_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsim.core.files.LEASE_S", 0.6), monkeypatch.setattr(claim, "LEASE_S", 0.6)
    elsewhere = lease(tmp_path / LOCK)
    elsewhere.acquire()  # its heart beats in a thread of this process
    text = (tmp_path / LOCK).read_text()
    with (tmp_path / LOCK).open("r+") as file:  # the same file, as another machine would have written it
        file.write(re.sub(r"host=(\S+)", lambda host: f"host={'x' * len(host[1])}", text))
    with pytest.raises(InputError, match=r"process \d+ on x+ is writing there"):
        Claim(tmp_path)
    elsewhere._stop_heartbeat()  # it died
    with Claim(tmp_path) as mine:
        assert f"pid={os.getpid()}" in (mine.folder / LOCK).read_text()


@pytest.mark.slow
def test_a_run_whose_lock_is_deleted_stops(
    tmp_path: Path, workload: Callable[..., Workload], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsim.core.files.LEASE_S", 0.03)
    with Simulation(workload("training.rounds=50"), tmp_path / "run") as simulation:
        (tmp_path / "run" / LOCK).unlink()
        with pytest.raises(RunError, match="was deleted or taken over by another process"):
            simulation.run()
    assert len(Run(tmp_path / "run").rounds) < 50
