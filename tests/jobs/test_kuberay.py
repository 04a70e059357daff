"""Manifests for KubeRay, checked with the operator's own schemas, and what kubectl is given."""

import json
import sys
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fedsim.core.errors import InputError, RunError
from fedsim.jobs.kuberay import KubeRay
from fedsim.jobs.manifest import as_yaml, check, read_manifest
from fedsim.jobs.target import Status, Submission

CLUSTERS = Path(__file__).parents[2] / "clusters"
JOB = Submission(
    id="fedsim-small-0a1b", files={"workload.yaml": "name: small\nseed: 1\n", "mine.py": "on = 'yes'\n"},
    arguments=("run", "workload.yaml", "--out", "/shared/runs/small", "--resume"), out=Path("/shared/runs/small"),
)  # fmt: skip
# A kubectl that keeps what it is given, and answers from a folder: VERB.out if there is one, else nothing.
KUBECTL = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
said = sys.stdin.read() if "--filename=-" in sys.argv else ""
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], said]) + "\\n")
if "cp" in sys.argv:
    pathlib.Path(sys.argv[-1]).mkdir()
answers = sorted(folder.glob(sys.argv[1] + ".out*"))
if answers:
    sys.stdout.write(answers[0].read_text())
    if len(answers) > 1:
        answers[0].unlink()
if (folder / (sys.argv[1] + ".err")).exists():
    sys.exit((folder / (sys.argv[1] + ".err")).read_text())
"""


@pytest.fixture
def kuberay() -> KubeRay:
    return KubeRay("kuberay", CLUSTERS / "kuberay.yaml")


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kubectl"
    folder.mkdir()
    (folder / "kubectl").write_text(KUBECTL.format(python=sys.executable, folder=str(folder)))
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def calls(kubectl: Path) -> list[tuple[list[str], str]]:
    return [tuple(json.loads(line)) for line in (kubectl / "calls").read_text().splitlines()]  # type: ignore[misc]


def told(**status: Any) -> str:
    return json.dumps({"status": status})


def documents(text: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe", pure=True).load_all(text))


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    manifest = read_manifest(CLUSTERS / "kuberay.yaml", "RayJob")
    change(manifest)
    (folder / "own.yaml").write_text(as_yaml(manifest))
    return folder / "own.yaml"


def test_the_manifests_are_what_the_operator_takes() -> None:
    job = read_manifest(CLUSTERS / "kuberay.yaml", "RayJob")["spec"]["rayClusterSpec"]
    cluster = read_manifest(CLUSTERS / "kuberay-cluster.yaml", "RayCluster")["spec"]
    assert job == cluster
    assert job["authOptions"] == {"mode": "token"}


def test_a_dry_run_is_a_valid_job_with_its_files(kuberay: KubeRay) -> None:
    text = kuberay.render(JOB)
    files, job = documents(text)
    assert text == kuberay.render(JOB)
    assert files["kind"] == "ConfigMap"
    assert files["data"] == JOB.files
    check(job, "RayJob", Path("rendered"))
    assert job["metadata"]["name"] == files["metadata"]["name"] == JOB.id
    assert job["spec"]["entrypoint"] == (
        "env --chdir=/etc/fedsim fedsim run workload.yaml --out /shared/runs/small --resume --address auto"
    )
    for group in (job["spec"]["rayClusterSpec"]["headGroupSpec"], *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["volumes"][-1] == {"name": "fedsim-job", "configMap": {"name": JOB.id}}
        assert pod["containers"][0]["volumeMounts"][-1]["mountPath"] == "/etc/fedsim"
    assert kuberay.out == Path("/shared/runs")


def test_what_is_no_text_goes_along_in_base64(kuberay: KubeRay) -> None:
    config, _ = documents(kuberay.render(replace(JOB, files={**JOB.files, "0a.safetensors": b"\xff\x00"})))
    assert config["data"] == JOB.files
    assert {name: b64decode(text) for name, text in config["binaryData"].items()} == {"0a.safetensors": b"\xff\x00"}


def test_text_that_yaml_1_1_reads_as_something_else_is_quoted() -> None:
    values = {
        "a": "on",
        "b": "0o17",
        "c": "1_000",
        "d": "12:30",
        "e": "x\ny\n",
        "f": "a: b",
        "g": "~",
        "h": " x",
        "on": "=",
    }
    text = as_yaml(values)
    assert documents(text) == [values]
    old = YAML(typ="safe", pure=True)
    old.version = (1, 1)  # type: ignore[assignment]
    assert old.load(text) == values


@pytest.mark.parametrize(("change", "said"), [
    (lambda m: m["spec"].update(entrypont="x"), r"spec\.entrypont: unknown field; did you mean 'entrypoint'\?"),
    (lambda m: m["spec"].update(backoffLimit="no"), r"spec\.backoffLimit: 'no' is not of type 'integer'"),
    (lambda m: m["spec"]["rayClusterSpec"]["authOptions"].update(mode="off"), r"authOptions\.mode: 'off' is not one"),
    (lambda m: m["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(imgae="x"),
     r"headGroupSpec\.template\.spec\.containers\.0\.imgae: unknown field; did you mean 'image'\?"),
    (lambda m: m["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["rayStartParams"].update({"num-cpus": 4}),
     r"workerGroupSpecs\.0\.rayStartParams\.num-cpus: 4 is not of type 'string'"),
    (lambda m: m.update(kind="RayService"), r"kind: 'RayJob' was expected"),
    (lambda m: m.update(kind="RayCluster"), r"kind: 'RayJob' was expected"),
    (lambda m: m.pop("spec"), "'spec' is a required property"),
    (lambda m: m["metadata"].pop("annotations"), r"metadata\.annotations: give fedsim/runs"),
])  # fmt: skip
def test_a_wrong_field_is_caught_before_anything_is_sent(
    change: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path, kubectl: Path
) -> None:
    with pytest.raises(InputError, match=rf"own\.yaml: .*{said}"):
        KubeRay("own", changed(tmp_path, change))
    assert not (kubectl / "calls").exists()


@pytest.mark.parametrize("text", ["[1]", "a: [", "!!python/name:os.system x", "x"])
def test_a_file_that_is_no_manifest_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml: "):
        KubeRay("x", tmp_path / "x.yaml")
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        KubeRay("x", tmp_path / "none.yaml")


def test_rooms_are_the_pods_limits(kuberay: KubeRay, tmp_path: Path) -> None:
    nodes = kuberay.nodes()
    assert nodes is not None
    assert [(node.cpus, node.total_memory) for node in nodes] == [(8, 32 * 2**30)] * 3
    idle_head = changed(
        tmp_path, lambda m: m["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": "0"})
    )
    assert len(KubeRay("own", idle_head).nodes() or ()) == 2
    unknown = changed(tmp_path, lambda m: m["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("replicas"))
    assert KubeRay("own", unknown).nodes() is None


def test_kubectl_is_given_exactly_what_the_dry_run_shows(kuberay: KubeRay, kubectl: Path) -> None:
    kuberay.submit(JOB)
    (first, _), (arguments, said) = calls(kubectl)
    assert first == ["delete", "--namespace=default", "rayjob", JOB.id, "--ignore-not-found", "--wait"]
    assert arguments == ["apply", "--namespace=default", "--server-side", "--filename=-"]
    assert said == kuberay.render(JOB)


@pytest.mark.parametrize(("said", "status"), [
    ("", Status("unknown")),
    (told(), Status("pending")),
    (told(jobDeploymentStatus="Initializing"), Status("pending")),
    (told(jobDeploymentStatus="Running", jobStatus="PENDING"), Status("pending")),
    (told(jobDeploymentStatus="Running", jobStatus="RUNNING"), Status("running")),
    (told(jobDeploymentStatus="Running", jobStatus="SUCCEEDED"), Status("running")),
    (told(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", message="fine"), Status("succeeded")),
    (told(jobDeploymentStatus="Complete", jobStatus="STOPPED"), Status("stopped")),
    (told(jobDeploymentStatus="Suspended"), Status("stopped")),
    (told(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message="exit\n2"),
     Status("failed", "AppFailed: exit 2")),
    (told(jobDeploymentStatus="ValidationFailed", message="no"), Status("failed", "no")),
])  # fmt: skip
def test_the_operators_words(said: str, status: Status, kuberay: KubeRay, kubectl: Path) -> None:
    (kubectl / "get.out").write_text(said)
    assert kuberay.status(JOB.id) == status


def test_waiting_and_following_end_with_the_job(kuberay: KubeRay, kubectl: Path) -> None:
    running, done = (
        told(jobDeploymentStatus=d, jobStatus=j) for d, j in (("Running", "RUNNING"), ("Complete", "SUCCEEDED"))
    )
    for at, said in enumerate((running, "ADDED\nMODIFIED\n", running, done)):
        (kubectl / f"get.out{at}").write_text(said)
    assert kuberay.wait(JOB.id) == Status("succeeded")
    assert sum("--watch" in arguments for arguments, _ in calls(kubectl)) == 1
    (kubectl / "logs.out").write_text("round 1/2 \u2192\n")
    assert "".join(kuberay.logs(JOB.id, follow=True)) == "round 1/2 \u2192\n"
    assert calls(kubectl)[-1][0] == ["logs", "--namespace=default", f"job/{JOB.id}", "--follow"]


def test_what_kubectl_refuses_is_said(kuberay: KubeRay, kubectl: Path) -> None:
    (kubectl / "apply.err").write_text("Error from server (Forbidden): rayjobs.ray.io is forbidden\n")
    with pytest.raises(RunError, match=r"^kubectl: Error from server \(Forbidden\)"):
        kuberay.submit(JOB)
    (kubectl / "get.err").write_text("The connection to the server localhost:8080 was refused\n")
    with pytest.raises(InputError, match=r"^kubectl: The connection to the server"):
        kuberay.status(JOB.id)
    (kubectl / "kubectl").unlink()
    with pytest.raises(InputError, match="kubectl is not on PATH"):
        kuberay.status(JOB.id)


def test_a_stopped_job_is_suspended(kuberay: KubeRay, kubectl: Path) -> None:
    kuberay.stop(JOB.id)
    assert calls(kubectl)[-1][0][-1] == '--patch={"spec": {"suspend": true}}'


def test_a_run_is_copied_through_a_pod_that_goes_again(kuberay: KubeRay, kubectl: Path, tmp_path: Path) -> None:
    (kubectl / "exec.out").write_text("there\n")
    kuberay.fetch(JOB.out, tmp_path / "fetched")
    assert (tmp_path / "fetched").is_dir()
    (pod,) = documents(calls(kubectl)[0][1])
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "fedsim-shared"}
    assert [arguments[0] for arguments, _ in calls(kubectl)] == ["apply", "wait", "exec", "cp", "delete"]
    (kubectl / "exec.out").write_text("")
    with pytest.raises(InputError, match="does not exist on the cluster"):
        kuberay.fetch(JOB.out, tmp_path / "other")
    assert calls(kubectl)[-1][0][0] == "delete"
    with pytest.raises(InputError, match="exists"):
        kuberay.fetch(JOB.out, tmp_path / "fetched")


def test_what_a_shell_would_change_and_what_is_too_much_are_refused(kuberay: KubeRay) -> None:
    with pytest.raises(InputError, match="cannot be sent to KubeRay"):
        kuberay.render(Submission(id=JOB.id, files=JOB.files, arguments=("run", "$(reboot)"), out=JOB.out))
    with pytest.raises(InputError, match="exceed 1,000,000 bytes"):
        kuberay.render(Submission(id=JOB.id, files={"a.yaml": "x" * 1_000_001}, arguments=JOB.arguments, out=JOB.out))
