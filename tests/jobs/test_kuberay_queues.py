"""Queues on Kubernetes: labels for Kueue and Volcano are kept, and a job that Kueue lets wait is not a stopped one."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsim.core.errors import InputError
from fedsim.jobs.kept import kept_log, kept_status
from fedsim.jobs.kuberay import KUEUE, KubeRay
from fedsim.jobs.manifest import check
from fedsim.jobs.target import Status
from fedsim.workload.resources import Resources

from .test_kuberay import CLUSTERS, JOB, calls, changed, documents, kubectl, told  # noqa: F401 - a fixture too

QUEUES = {
    "kueue": {KUEUE: "team", "kueue.x-k8s.io/priority-class": "high"},
    "volcano": {"ray.io/scheduler-name": "volcano", "volcano.sh/queue-name": "team", "ray.io/priority-class-name": "h"},
}


def in_queue(folder: Path, which: str, **spec: Any) -> KubeRay:
    def change(manifest: dict[str, Any]) -> None:
        manifest["metadata"]["labels"] = QUEUES[which]
        manifest["spec"] |= spec

    return KubeRay("own", changed(folder, change))


def waiting(word: str, queue: str | None = "team") -> str:
    """A job as Kueue leaves it while it waits."""
    return json.dumps(
        {"metadata": {"labels": {KUEUE: queue} if queue else {}}, "status": {"jobDeploymentStatus": word}}
    )


@pytest.mark.parametrize("which", QUEUES)
def test_the_labels_of_a_queue_go_along(which: str, tmp_path: Path) -> None:
    _, job = documents(in_queue(tmp_path, which).render(JOB))
    check(job, "RayJob", Path("rendered"))
    assert job["metadata"]["labels"] == {**QUEUES[which], "app.kubernetes.io/name": "fedsim"}
    assert job["spec"]["suspend"] is False, "Kueue suspends it where it is created"


def test_the_commented_lines_are_the_labels() -> None:
    """With the comment signs removed, the file is a manifest with both queues and a labelled group."""
    text = (CLUSTERS / "kuberay.yaml").read_text()
    for label in ("labels:  ", "  kueue.x-k8s.io/", "  ray.io/", "  volcano.sh/"):
        text = text.replace(f"  # {label}", f"  {label}")
    text = text.replace("# labels: {", "labels: {")
    (job,) = documents(text)
    check(job, "RayJob", Path("uncommented"))
    assert set(job["metadata"]["labels"]) == {*QUEUES["kueue"], *QUEUES["volcano"]}
    assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["labels"] == {"accelerator": "H100"}


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (waiting("Suspended"), Status("pending", "waits in the queue team")),
        (waiting("Suspending"), Status("pending", "waits in the queue team")),
        (waiting("Suspended", None), Status("stopped")),
        (waiting("Initializing"), Status("pending")),
    ],
)
def test_a_job_that_kueue_lets_wait_is_pending(
    said: str, status: Status, tmp_path: Path, kubectl: Path  # noqa: F811 - the fixture
) -> None:  # fmt: skip
    (kubectl / "get.out").write_text(said)
    assert in_queue(tmp_path, "kueue").status(JOB.id) == status


def test_a_job_that_is_stopped_leaves_the_queue(tmp_path: Path, kubectl: Path) -> None:  # noqa: F811 - the fixture
    """Kueue would resume one that is only suspended; what it printed and how it ended are kept here."""
    running = json.loads(told(jobDeploymentStatus="Running", jobStatus="RUNNING"))
    (kubectl / "get.out").write_text(json.dumps({**json.loads(waiting("Running")), **running}))
    (kubectl / "logs.out").write_text("round 1/2\n")
    in_queue(tmp_path, "kueue").stop(JOB.id)
    (arguments, _) = calls(kubectl)[-1]
    assert arguments == ["delete", "--namespace=default", "rayjob", JOB.id, "--ignore-not-found", "--wait"]
    assert kept_status(JOB.id) == Status("stopped")
    assert kept_log(JOB.id) == "round 1/2\n"


def test_what_kueue_would_refuse_is_refused_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"spec\.shutdownAfterJobFinishes: must be true where the label kueue\.x-k8s"):
        in_queue(tmp_path, "kueue", shutdownAfterJobFinishes=False)
    assert in_queue(tmp_path, "volcano", shutdownAfterJobFinishes=False).out == Path("/shared/runs")


@pytest.mark.parametrize(
    ("asked", "fits"), [({"zone": "b"}, True), ({"zone": "c"}, False), ({"ray.io/accelerator-type": "H100"}, True)]
)
def test_labels_of_a_group_are_those_of_its_nodes(asked: dict[str, str], fits: bool, tmp_path: Path) -> None:
    """Ray's own are not known before it runs there."""

    def label(manifest: dict[str, Any]) -> None:
        manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["labels"] = {"zone": "b"}

    head, *workers = KubeRay("own", changed(tmp_path, label)).nodes() or ()
    assert (head.labels, [dict(node.labels) for node in workers]) == ({}, [{"zone": "b"}] * 2)
    assert all(node.carries(Resources(labels=asked)) == fits for node in workers)
