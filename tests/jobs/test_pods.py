"""What keeps pods from starting, as Kubernetes prints it, and what a user without rights is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsim.core.errors import RunError
from fedsim.jobs.kuberay import KubeRay
from fedsim.jobs.target import Status

from .conftest import Fedsim
from .test_kuberay import JOB, calls, kubectl, kuberay, told  # noqa: F401 - fixtures

INITIALIZING = told(jobDeploymentStatus="Initializing", rayClusterName="fedsim-small-0a1b-raycluster-x")
FORBIDDEN = (
    'Error from server (Forbidden): rayjobs.ray.io is forbidden: User "me" cannot list resource "rayjobs" in API group '
    '"ray.io" in the namespace "default"'
)


def pod(name: str, *waiting: dict[str, str], unscheduled: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {"phase": "Pending"}
    if unscheduled:
        status["conditions"] = [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unscheduled}
        ]
    else:
        status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
        status["containerStatuses"] = [{"name": "ray-head", "state": {"waiting": one}} for one in waiting]
    return {"metadata": {"name": name}, "status": status}


BACK_OFF = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry/fedsim:0.1.0"'}
NO_VOLUME = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        ([pod("head", {"reason": "ContainerCreating"})], ""),
        ([pod("head", {"reason": "ContainerCreating"}), pod("worker", BACK_OFF)],
         'worker: ImagePullBackOff: Back-off pulling image "registry/fedsim:0.1.0"'),
        ([pod("head", unscheduled=NO_VOLUME)], f"head: Unschedulable: {NO_VOLUME}"),
        ([], ""),
    ],
)  # fmt: skip
def test_why_pods_do_not_start_is_said(kuberay: KubeRay, kubectl: Path, pods: list[Any], reason: str) -> None:  # noqa: F811
    for at, said in enumerate((INITIALIZING, json.dumps({"items": pods}))):
        (kubectl / f"get.out{at}").write_text(said)
    assert kuberay.status(JOB.id) == Status("pending", reason)
    assert calls(kubectl)[-1][0][:3] == ["get", "--namespace=default", "pods"]


def test_it_is_said_once_while_a_job_is_waited_for(
    kuberay: KubeRay,  # noqa: F811
    kubectl: Path,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck, done = json.dumps({"items": [pod("head", BACK_OFF)]}), told(jobDeploymentStatus="Failed", message="too long")
    for at, said in enumerate((INITIALIZING, stuck, "ADDED\nMODIFIED\nMODIFIED\n", *[INITIALIZING, stuck] * 2, done)):
        (kubectl / f"get.out{at}").write_text(said)
    assert kuberay.wait(JOB.id) == Status("failed", "too long")
    assert [record.getMessage().partition(": Back")[0] for record in caplog.records] == [
        f"{JOB.id}: pending: head: ImagePullBackOff"
    ]


def test_a_user_without_rights_is_told_which(kuberay: KubeRay, kubectl: Path) -> None:  # noqa: F811
    (kubectl / "get.err").write_text(f"{FORBIDDEN}\n")
    with pytest.raises(RunError) as error:
        kuberay.status(JOB.id)
    assert str(error.value) == (
        f"kubectl: {FORBIDDEN}; this user needs the rights to get, watch, create, patch and delete rayjobs, configmaps "
        "and pods, and to create pods/exec, in this namespace"
    )


def test_jobs_list_says_what_a_job_waits_for(
    fedsim: Fedsim,
    workload: Path,
    kubectl: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    status, _, err = fedsim("submit", workload, "--cluster", "kuberay")
    assert status == 0, err
    for at, said in enumerate((INITIALIZING, json.dumps({"items": [pod("head", BACK_OFF)]}))):
        (kubectl / f"get.out{at}").write_text(said)
    (line,) = [line for line in fedsim("jobs", "list")[1].splitlines() if "kuberay" in line]
    assert "pending: head: ImagePullBackOff: Back-off pulling image" in line


def test_jobs_list_says_why_a_cluster_does_not_tell(fedsim: Fedsim, workload: Path, kubectl: Path) -> None:  # noqa: F811
    status, _, err = fedsim("submit", workload, "--cluster", "kuberay")
    assert status == 0, err
    (kubectl / "get.err").write_text(f"{FORBIDDEN}\n")
    (line,) = [line for line in fedsim("jobs", "list")[1].splitlines() if "kuberay" in line]
    assert f"unknown: kubectl: {FORBIDDEN}; this user needs the rights to get," in line
