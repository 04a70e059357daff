"""How a job ended, and its log, outlive its cluster, of whatever kind that was."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.jobs.kept import forget, keep, kept_log, kept_status
from fedsim.jobs.ray_jobs import RayJobs
from fedsim.jobs.receipts import receipt_of, write_receipt
from fedsim.jobs.submission import Job, prepare
from fedsim.jobs.target import Status, Target
from fedsim.jobs.targets import find_target

from .conftest import Fedsim

NOWHERE = "http://127.0.0.1:9"
SAYS = "import sys; print('round 1/2'); print('fedsim: lr: is wrong', file=sys.stderr); sys.exit(int(sys.argv[1]))"
WAITS = "import signal, sys; signal.signal(15, lambda *_: sys.exit(130)); print('here', flush=True); signal.pause()"


def kept_run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "fedsim.jobs.kept", "fedsim-a", sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "status"), [
    (0, Status("succeeded")), (1, Status("failed", "lr: is wrong")), (130, Status("stopped")),
])  # fmt: skip
def test_a_job_of_this_machine_notes_how_it_ends(code: int, status: Status) -> None:
    done = kept_run(SAYS, str(code))
    assert (done.returncode, "round 1/2" in done.stdout) == (code, True)
    assert kept_status("fedsim-a") == status
    assert kept_log("fedsim-a") == done.stdout
    kept_run(SAYS, str(code))
    assert kept_log("fedsim-a") == 2 * done.stdout, "of one that was sent again, all that it ever printed"
    forget("fedsim-a")
    assert kept_status("fedsim-a") is None


def test_a_signal_is_for_the_job_and_a_killed_one_has_failed() -> None:
    command = [sys.executable, "-P", "-m", "fedsim.jobs.kept", "fedsim-a", sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "here\n"
        process.terminate()  # as Ray tells every process of a job, this one first
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), 15)
        assert process.wait() == 130
    assert kept_status("fedsim-a") == Status("stopped")
    assert kept_run("import os; os.kill(os.getpid(), 9)").returncode == 137
    assert kept_status("fedsim-a") == Status("failed", "exit status 137")


def _url(_: Path) -> Target:
    return RayJobs(NOWHERE, NOWHERE)


def _removed_file(folder: Path) -> Target:
    (folder / "mine.sh").write_text("exit 1\n")
    target = find_target(str(folder / "mine.sh"))
    (folder / "mine.sh").unlink()
    return target


CLUSTERS: list[Callable[[Path], Target]] = [
    _url, _removed_file, *(lambda _, name=name: find_target(name) for name in ("local", "slurm", "kuberay"))
]  # type: ignore[misc]  # fmt: skip


@pytest.fixture
def job(workload: Path, tmp_path: Path) -> Job:
    return prepare(workload, [], tmp_path / "run", None)


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize(("status", "code"), [(Status("succeeded"), 0), (Status("failed", "lr: is wrong"), 1)])
def test_what_is_kept_is_told_when_the_cluster_is_gone(
    fedsim: Fedsim, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch,
    cluster: Callable[[Path], Target], status: Status, code: int,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # neither squeue nor kubectl
    write_receipt(cluster(tmp_path), job)
    keep(job.submission.id, status, "round 1/2\n")
    name = job.submission.id
    assert f" {status.state} " in fedsim("jobs", "list")[1].splitlines()[1]
    assert fedsim("jobs", "logs", name) == (0, "round 1/2\n", "")
    assert fedsim("jobs", "logs", name, "--follow") == (0, "round 1/2\n", "")
    got, _, err = fedsim("jobs", "wait", name)
    assert (got, err.count("\n")) == (code, 1)
    assert (": succeeded, in " if not code else ": failed: lr: is wrong\n") in err
    assert fedsim("jobs", "stop", name) == (0, "", f"{name}: {status.state}\n")


@pytest.mark.parametrize("cluster", CLUSTERS[:-1])  # a pod fetches from KubeRay
def test_a_run_is_fetched_when_the_cluster_is_gone(
    fedsim: Fedsim, tmp_path: Path, job: Job, cluster: Callable[[Path], Target]
) -> None:
    write_receipt(cluster(tmp_path), job)
    keep(job.submission.id, Status("succeeded"), "")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.html").write_text("done")
    assert fedsim("jobs", "fetch", job.submission.id, "--to", "here")[0] == 0
    assert (tmp_path / "here" / "report.html").read_text() == "done"


def test_a_result_that_is_visible_tells_of_an_end_that_nobody_saw(fedsim: Fedsim, tmp_path: Path, job: Job) -> None:
    write_receipt(RayJobs(NOWHERE, NOWHERE), job)
    name = job.submission.id
    assert fedsim("jobs", "wait", name)[0] == 2
    (tmp_path / "run").mkdir()
    for file in ("report.html", "log.txt"):
        (tmp_path / "run" / file).write_text("round 2/2\n")
    assert fedsim("jobs", "wait", name)[0] == 0
    assert fedsim("jobs", "logs", name)[:2] == (0, "round 2/2\n")
    before = time.time() - 3600  # of an earlier job into the same folder
    os.utime(tmp_path / "run" / "report.html", (before, before))
    assert fedsim("jobs", "wait", name)[0] == 2
    assert "cluster gone" in fedsim("jobs", "list")[1]


def test_what_slurm_left_is_read_where_there_is_no_slurm(
    fedsim: Fedsim, state: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    write_receipt(find_target("slurm"), job)
    folder = state / "slurm" / job.submission.id
    folder.mkdir(parents=True)
    (folder / "output.txt").write_text("round 1/2\nfedsim: lr: is wrong\n")
    for code, status in (("1", Status("failed", "lr: is wrong")), ("0", Status("succeeded"))):
        (folder / "status").write_text(f"{code}\n")
        assert find_target("slurm").status(job.submission.id) == status
    assert fedsim("jobs", "wait", job.submission.id)[0] == 0
    assert fedsim("jobs", "logs", job.submission.id)[1].startswith("round 1/2\n")
    assert receipt_of(job.submission.id).shown == "slurm"
