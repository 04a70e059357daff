"""`fedsim submit` as a user meets it before anything is sent."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from fedsim.cli import app as cli

Fedsim = Callable[..., tuple[int, str, str]]

LISTED = (
    "kuberay, kuberay-cluster, local, slurm, vms, a file ending in .sh, .sbatch, .yaml, "
    "or http://HOST:PORT of a Ray dashboard"
)
RAY = ("--set", "engine.backend=ray")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSIM_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))  # without a token of the user's own cluster


@pytest.mark.parametrize(
    ("cluster", "said"),
    [((), f"--cluster: missing; choose one of {LISTED}"),
     (("--cluster", "lokal"), f"--cluster lokal: did you mean 'local'? choose {LISTED}"),
     (("--cluster", "x"), f"--cluster x: choose {LISTED}"),
     (("--cluster", "x.sh"), f"--cluster x.sh: no such file; choose {LISTED}"),
     (("--cluster", "small.yaml"), "--cluster small.yaml: PATH/small.yaml is neither a RayJob (apiVersion ray.io/v1) "
                                   "nor Ray's launcher file"),
     (("--cluster", "launcher.yaml"), "--cluster launcher.yaml: is for Ray's launcher; ray up PATH/launcher.yaml, "
                                      "ray dashboard PATH/launcher.yaml, then --cluster http://127.0.0.1:8265"),
     (("--cluster", "standing.yaml"), "--cluster standing.yaml: is a RayCluster; kubectl apply it, kubectl "
                                      "port-forward its head's service, then --cluster http://127.0.0.1:8265"),
     (("--cluster", "http://127.0.0.1:9"), "--cluster http://127.0.0.1:9: no Ray dashboard answers there "
                                           "([Errno 111] Connection refused)"),
     (("--cluster", "http://127.0.0.1:99999"), "--cluster http://127.0.0.1:99999: no Ray dashboard answers there "
                                               "(Port out of range 0-65535)")],
)  # fmt: skip
def test_a_cluster_that_is_none(
    fedsim: Fedsim, workload: Path, tmp_path: Path, cluster: tuple[str, ...], said: str
) -> None:
    (tmp_path / "launcher.yaml").write_text("cluster_name: x\nprovider: {type: aws}\n")
    (tmp_path / "standing.yaml").write_text("apiVersion: ray.io/v1\nkind: RayCluster\n")
    assert fedsim("submit", workload, *cluster) == (2, "", f"fedsim: {said.replace('PATH', str(tmp_path))}\n")
    assert not (tmp_path / "state").exists()


def test_a_dry_run_prints_what_would_be_sent_and_does_nothing(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    command = ("submit", workload, "--cluster", "http://127.0.0.1:9", "--out", "a b", *RAY, "--dry-run")
    status, out, err = fedsim(*command)
    assert (status, err) == (0, "")
    job, _, file = out.partition("\n\n# working_dir/workload.yaml\n")
    assert file.startswith("name: small\n")
    found = re.fullmatch(
        r"# Ray job\nsubmission_id: (fedsim-small-[0-9a-f]{10})\n"
        r"entrypoint: fedsim run workload\.yaml --resume --out '(.*)/a b' --address auto\n"
        r"metadata: \{'name': '\1', 'out': '\2/a b'\}\n"
        r"env_vars: \{'RAY_JOB_STOP_WAIT_TIME_S': '600'\}", job,
    )  # fmt: skip
    assert found, job
    assert found[2] == str(tmp_path)
    assert fedsim(*command)[1] == out
    assert fedsim("submit", workload, "--cluster", "local", *RAY, "--dry-run")[0] == 0
    assert set(tmp_path.rglob("*")) == before


def test_a_name_is_looked_up_here_first(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "local.sh").write_text("echo of our own >&2; exit 1\n")
    status, _, err = fedsim("submit", workload, "--cluster", "local", *RAY)
    assert (status, err.splitlines()[-1]) == (1, "fedsim: --cluster local: of our own")
    assert err.splitlines()[0] == f"starting local; stop it with: {tmp_path / 'clusters' / 'local.sh'} down"


def test_a_wrong_workload_is_refused_before_any_cluster(fedsim: Fedsim, workload: Path) -> None:
    status, _, err = fedsim("submit", workload, "--cluster", "local", "--set", "training.rouns=1")
    assert status == 2
    assert err.endswith("training.rouns: unknown key; did you mean 'rounds'?\n")


def test_the_contract_of_submit() -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    options = {option for parameter in commands["submit"].params for option in parameter.opts}
    points = {"--per-point", "--array", "--at-once"}
    assert options == {"file", "--cluster", "--set", "--out", "--wait", "--dry-run", "--tag", *points}
    assert set(commands["jobs"].commands) == {"list", "logs", "wait", "stop", "fetch"}
