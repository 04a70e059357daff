"""`fedsim submit` on a real cluster: three raylets with token authentication, through the Jobs API."""

import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from pandas.testing import assert_frame_equal
from ray.job_submission import JobSubmissionClient

from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.jobs.submission import prepare
from fedsim.workload.reading import load_workload
from tests.conftest import COMMAND, unplaced

from .conftest import Cluster, Fedsim, script

pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # of Ray's own client


def assert_same_bits(one: Path, other: Path) -> None:
    """Every tensor of every checkpoint, and every table but where and how long."""
    files = [{p.relative_to(r): p.read_bytes() for p in r.glob("checkpoints/**/*.safetensors")} for r in (one, other)]
    assert files[0]
    assert files[0] == files[1]
    for table in ("rounds", "clients", "evaluation", "manifest"):
        ours, theirs = (unplaced(getattr(Run(path), table)) for path in (one, other))
        assert_frame_equal(ours, theirs, check_exact=True)


def client(cluster: Cluster) -> JobSubmissionClient:
    return JobSubmissionClient(cluster.url, headers={"Authorization": f"Bearer {cluster.token.read_text()}"})


def jobs_into(cluster: Cluster, out: Path) -> list[Any]:
    return [job for job in client(cluster).list_jobs() if (job.metadata or {}).get("out") == str(out)]


def processes(cluster: Cluster) -> list[psutil.Process]:
    """Of the cluster, by what they are called with or write to: not as the script finds them."""
    folder = (cluster.state / "local" / "folder").read_text().strip()
    found = []
    for process in psutil.process_iter():
        try:
            uses = [*process.cmdline(), *(file.path for file in process.open_files())]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found += [process] if any(folder in text for text in uses) else []
    return found


def test_a_submitted_run_has_the_bits_of_a_run_here(
    fedsim: Fedsim, workload: Path, tmp_path: Path, cluster: Cluster
) -> None:
    run(load_workload(workload, ["engine.backend=serial"]), tmp_path / "here")
    status, out, err = fedsim("submit", workload, "--cluster", "local", "--wait")
    assert status == 0, err
    assert "3 clients in 3 actors on 3 nodes" in err
    assert "round 2/2" in out
    assert_same_bits(tmp_path / "here", tmp_path / "runs" / "tiny")
    assert (tmp_path / "runs" / "tiny" / "report.html").is_file()
    assert pd.read_parquet(tmp_path / "runs" / "tiny" / "clients.parquet")["pid"].nunique() == 3, "an actor a client"
    job = prepare(workload, [], None, None).submission.id

    # again: not run twice
    (before,) = jobs_into(cluster, tmp_path / "runs" / "tiny")
    status, out, err = fedsim("submit", workload, "--cluster", "local", "--wait")
    assert (status, out) == (0, "")
    assert err == f"{job}: is done already, in {tmp_path / 'runs' / 'tiny'}\n"
    assert jobs_into(cluster, tmp_path / "runs" / "tiny") == [before]

    # looked after
    status, out, _ = fedsim("jobs", "list")
    assert [line.split()[:3] for line in out.splitlines() if job in line] == [[job, "local", "succeeded"]]
    assert "round 2/2" in fedsim("jobs", "logs", job.removeprefix("fedsim-"))[1]
    assert fedsim("jobs", "wait", job)[0] == 0
    assert fedsim("jobs", "fetch", job, "--to", "fetched")[0] == 0
    assert_same_bits(tmp_path / "fetched", tmp_path / "runs" / "tiny")
    status, _, err = fedsim("jobs", "fetch", job, "--to", "fetched")
    assert (status, err) == (2, "fedsim: fetched: exists; name a new folder\n")


@pytest.mark.usefixtures("ray_session")  # another cluster of this process, whose token Ray would send along
def test_who_has_not_the_token_is_refused(fedsim: Fedsim, workload: Path, tmp_path: Path, cluster: Cluster,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    for token, said in ((None, "it asks for a token"), ("0" * 64, "the token is not the one of this cluster")):
        if token:
            monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        status, out, err = fedsim("submit", workload, "--cluster", cluster.url, "--out", "refused")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"fedsim: --cluster {cluster.url}: {said}; RAY_AUTH_TOKEN_PATH")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.token))
    assert jobs_into(cluster, tmp_path / "refused") == []
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # --cluster counts
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # and the token is not for a proxy
    status, _, err = fedsim("submit", workload, "--cluster", cluster.url, "--set", "engine.backend=serial")
    assert (status, err) == (2, "fedsim: engine.backend: serial runs in one process; a cluster needs ray\n")


def test_what_does_not_fit_is_not_sent(fedsim: Fedsim, workload: Path, tmp_path: Path, cluster: Cluster) -> None:
    keys = ("--out", "big", "--set", "federation.sites.0.resources.memory=1e6")
    status, _, err = fedsim("submit", workload, "--cluster", "local", *keys)
    assert status == 2
    assert err.startswith("fedsim: site A: resources.memory: 1e+06 GB, and Ray counts no more than ")
    assert jobs_into(cluster, tmp_path / "big") == []


def test_the_token_is_the_owners_alone(cluster: Cluster) -> None:
    token = cluster.token.read_text()
    assert len(token) == 64
    assert cluster.token.stat().st_mode & 0o777 == 0o600
    assert cluster.token.parent.stat().st_mode & 0o777 == 0o700
    folder = Path((cluster.state / "local" / "folder").read_text().strip())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not any(token in " ".join(process.cmdline()) for process in processes(cluster))


def test_nothing_listens_beyond_loopback(cluster: Cluster) -> None:
    listening = {
        (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for process in processes(cluster)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or not connection.raddr
    }
    assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
    assert any("ray::" in name for name, _ in listening), "agents"
    assert {ip for _, ip in listening} == {"127.0.0.1"}


@pytest.mark.long
def test_a_failing_job_says_why(fedsim: Fedsim, workload: Path, cluster: Cluster) -> None:
    keys = ("--out", "failing", "--set", "faults=[{kind: raise, client: B, round: 2}]")
    status, out, err = fedsim("submit", workload, "--cluster", "local", "--wait", *keys)
    assert status == 1
    assert "round 1/2" in out
    last = err.splitlines()[-1]
    assert "failed: client B, round 2, seed 5: InjectedError: a fault of the workload" in last
    job = last.split(": ")[1]
    assert fedsim("jobs", "wait", job) == (1, "", last + "\n")
    assert fedsim("submit", workload, "--cluster", "local", "--wait", *keys)[0] == 1, "it is sent again"
    assert fedsim("jobs", "logs", job)[1].count("Running entrypoint") == 2


@pytest.mark.long
def test_a_stopped_job_goes_on(fedsim: Fedsim, workload: Path, tmp_path: Path, cluster: Cluster) -> None:
    keys = ["--out", "long", "--set", "engine.keep_last=2", "--set", "training.rounds=150"]
    assert fedsim("submit", workload, "--cluster", "local", *keys)[0] == 0
    job = prepare(workload, keys[3::2], Path("long"), None).submission.id
    deadline = time.monotonic() + 120
    while not complete_rounds(tmp_path / "long"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    status, _, err = fedsim("submit", workload, "--cluster", "local", *keys)
    assert (status, err.splitlines()[0]) == (0, f"{job}: is running already, in {tmp_path / 'long'}")
    other = ("submit", workload, "--cluster", "local", *keys[:-1], "training.rounds=151")
    assert fedsim(*other)[::2] == (
        2, f"fedsim: --out {tmp_path / 'long'}: {job} is writing there; stop it first, or choose another folder\n"
    )  # fmt: skip
    assert fedsim("jobs", "fetch", job)[0] == 2
    assert fedsim("jobs", "stop", job)[2].endswith(f"{job}: stopped\n")
    begun = complete_rounds(tmp_path / "long")[-1]
    assert begun < 150
    assert fedsim("submit", workload, "--cluster", "local", "--wait", *keys)[0] == 0
    assert pd.read_parquet(tmp_path / "long" / "rounds.parquet")["round"].tolist() == list(range(1, 151))
    again = fedsim("jobs", "logs", job)[1].rpartition("Running entrypoint")[2]
    assert f"round {begun + 1}/150" in again
    assert f"round {begun}/150" not in again
    run(load_workload(workload, [*keys[3::2], "engine.backend=serial"]), tmp_path / "here")
    assert_same_bits(tmp_path / "here", tmp_path / "long")
    status, _, err = fedsim("submit", workload, "--cluster", "local", "--out", "long", "--set", "seed=6")
    assert (status, err.splitlines()[-1]) == (
        2, f"fedsim: --out {tmp_path / 'long'}: holds another run, seed: was 5 and is now 6; "
        "a run that has begun keeps it; choose another folder",
    )  # fmt: skip


@pytest.mark.long
def test_two_submits_at_once_are_one_job(workload: Path, tmp_path: Path, cluster: Cluster) -> None:
    command = [*COMMAND, "submit", str(workload), "--cluster", "local", "--out", str(tmp_path / "once"), "--wait"]

    def submit(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(submit, range(3)))
    assert [(one.returncode, one.stderr[-200:]) for one in done if one.returncode] == []
    (job,) = jobs_into(cluster, tmp_path / "once")
    assert client(cluster).get_job_logs(job.submission_id).count("Running entrypoint") == 1


@pytest.mark.long
def test_ctrl_c_leaves_the_job_alone(fedsim: Fedsim, workload: Path, tmp_path: Path, cluster: Cluster) -> None:
    code = (
        f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {COMMAND[-1]}"  # else as inherited
    )
    command = [*COMMAND[:-1], code, "submit", workload, "--cluster", "local", "--out", tmp_path / "left", "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as submit:
        assert submit.stdout
        next(line for line in submit.stdout if "Running entrypoint" in line)
        submit.send_signal(signal.SIGINT)
        _, err = submit.communicate()
    (job,) = jobs_into(cluster, tmp_path / "left")
    assert submit.returncode == 130
    assert err.endswith(f"the job keeps running; follow it with: fedsim jobs logs {job.submission_id} --follow\n")
    assert fedsim("jobs", "wait", job.submission_id)[0] == 0


@pytest.mark.long
def test_a_study_is_submitted_as_one_job(fedsim: Fedsim, workload: Path, tmp_path: Path, cluster: Cluster) -> None:
    study = {"name": "pair", "kind": "compare", "workload": workload.name, "seeds": [1], "reference": "fedavg",
             "methods": {"fedavg": {}, "fedbn": {}}}  # fmt: skip
    (tmp_path / "pair.yaml").write_text(json.dumps(study))
    status, _, err = fedsim("submit", "pair.yaml", "--cluster", "local", "--wait")
    assert status == 0, err
    assert (tmp_path / "studies" / "pair" / "results.parquet").is_file()
    (job,) = jobs_into(cluster, tmp_path / "studies" / "pair")
    assert fedsim("jobs", "fetch", job.submission_id, "--to", "copy")[0] == 0
    assert (tmp_path / "copy" / "results.parquet").is_file()


@pytest.mark.slow
def test_down_leaves_how_jobs_ended(fedsim: Fedsim, brought_up: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSIM_STATE", str(brought_up.state))
    before = fedsim("jobs", "list")[1]
    job = next(line.split()[0] for line in before.splitlines() if "succeeded" in line)
    _down_leaves_nothing(brought_up)
    assert fedsim("jobs", "list")[1] == before
    assert fedsim("jobs", "wait", job)[0] == 0
    assert "round 2/2" in fedsim("jobs", "logs", job)[1]
    assert fedsim("jobs", "fetch", job, "--to", "again")[0] == 0


def _down_leaves_nothing(brought_up: Cluster) -> None:
    before, folder = processes(brought_up), Path((brought_up.state / "local" / "folder").read_text().strip())
    assert len(before) > 6
    up = script(brought_up.state, "up")
    assert (up.returncode, up.stdout) == (0, f"is up already at {brought_up.url}\n")
    assert script(brought_up.state, "down").returncode == 0
    _, alive = psutil.wait_procs(before, timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert not folder.exists()
    assert sorted(path.name for path in (brought_up.state / "local").iterdir()) == ["lock", "start.log"]
    assert script(brought_up.state, "status").stdout == "is down\n"
