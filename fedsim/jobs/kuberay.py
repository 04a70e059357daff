"""KubeRay: the cluster's file is a RayJob manifest, and kubectl does the rest.

A job is the manifest with the job's name, its command, and a ConfigMap of its small files that every pod mounts. Runs
go to a volume that all pods share; its folder is the manifest's annotation fedsim/runs.

The manifest's labels may name a queue. Volcano lets pods wait, as Kubernetes itself does. Kueue suspends a job until
its turn has come, and then resumes it, even if it was suspended by the user.
"""

import codecs
import json
import logging
import secrets
import shlex
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.core.errors import InputError, RunError
from fedsim.core.files import making
from fedsim.jobs.common import as_bytes, ask, check_free, checked_files, checked_id, stream
from fedsim.jobs.kept import keep
from fedsim.jobs.manifest import as_yaml, check, groups_of, nodes_of, pods_of, read_manifest
from fedsim.jobs.target import ENDED, Content, State, Status, Submission

if TYPE_CHECKING:
    from fedsim.engine.place.node import Node

log = logging.getLogger("fedsim")

RUNS_KEY = "fedsim/runs"
KUEUE = "kueue.x-k8s.io/queue-name"
"""The label that names a queue of Kueue."""
_ORDINARY = frozenset({"", "ContainerCreating", "PodInitializing"})  # why a container waits that will start soon
_MOUNTED = "/etc/fedsim"
_VOLUME = "fedsim-job"
_LARGEST = 1_000_000  # bytes of a ConfigMap
_FETCH_S = 3600  # lifetime of a pod that copies a run
_DEPLOYED: dict[str, State] = {
    "Failed": "failed", "ValidationFailed": "failed", "Suspending": "stopped", "Suspended": "stopped",
}  # fmt: skip
_SUSPENDED = frozenset({"Suspending", "Suspended"})
_ENDED: dict[str, State] = {"SUCCEEDED": "succeeded", "STOPPED": "stopped", "FAILED": "failed"}


class KubeRay:
    """A Kubernetes cluster with the KubeRay operator, reached through kubectl."""

    out: Path | None

    def __init__(self, name: str, path: Path) -> None:
        """Read the RayJob manifest.

        Args:
            name: The value of --cluster.
            path: The manifest.

        Raises:
            InputError: the operator would not accept it; names the field.
        """
        self.name = name
        self.path = path
        self._manifest = read_manifest(path, "RayJob")
        metadata = self._manifest["metadata"]
        runs = (metadata.get("annotations") or {}).get(RUNS_KEY)
        if not (isinstance(runs, str) and runs.startswith("/")):
            raise InputError(f"{path}: metadata.annotations: give {RUNS_KEY}, the runs' folder on the shared volume")
        if _queue(self._manifest) and not self._manifest["spec"].get("shutdownAfterJobFinishes"):
            raise InputError(f"{path}: spec.shutdownAfterJobFinishes: must be true where the label {KUEUE} is set")
        self.out = Path(runs)
        self._scope = [f"--namespace={metadata['namespace']}"] if "namespace" in metadata else []

    def render(self, submission: Submission) -> str:
        """The manifests to apply: a ConfigMap and a RayJob."""
        name, files = checked_id(submission.id), checked_files(submission)
        if sum(len(as_bytes(content)) for content in files.values()) > _LARGEST:
            raise InputError(f"{name}: its files exceed {_LARGEST:,} bytes, the limit of a ConfigMap")
        job = deepcopy(self._manifest)
        metadata = job["metadata"] | {"name": name}
        metadata["labels"] = (metadata.get("labels") or {}) | {"app.kubernetes.io/name": "fedsim"}
        job["metadata"] = metadata
        job["spec"]["entrypoint"] = _command(submission)
        job["spec"]["suspend"] = False  # as `stop` leaves it true
        for pod in pods_of(job["spec"]["rayClusterSpec"]):
            _mount(pod, name)
        check(job, "RayJob", self.path)
        kept = {key: metadata[key] for key in ("name", "namespace", "labels") if key in metadata}
        return as_yaml({"apiVersion": "v1", "kind": "ConfigMap", "metadata": kept, **_contents(files)}, job)

    def nodes(self) -> "tuple[Node, ...] | None":
        """One node per replica with its pod's limits; None if the manifest leaves out a limit."""
        return nodes_of(self._manifest["spec"]["rayClusterSpec"], self.path)

    def submit(self, submission: Submission) -> None:
        """Apply the manifests; a finished job of the same id is deleted first, since KubeRay reruns none."""
        manifests = self.render(submission)
        self._kubectl("delete", "rayjob", submission.id, "--ignore-not-found", "--wait")
        # on the server: else an annotation, which is limited to 256 kB, gets a copy of the files
        self._kubectl("apply", "--server-side", "--filename=-", stdin=manifests)

    def status(self, submission_id: str) -> Status:
        """The state of a job according to the operator."""
        job = self._job(submission_id)
        if not job:
            return Status("unknown")
        status, cluster = _status(job), str((job.get("status") or {}).get("rayClusterName", ""))
        waits = status.state == "pending" and not status.reason and cluster
        return Status("pending", self._waits_for(cluster)) if waits else status

    def _waits_for(self, cluster: str) -> str:
        """Why the pods of a job do not start, in one line; empty if they are about to."""
        selector = f"--selector=ray.io/cluster={cluster}"
        try:
            pods = json.loads(self._kubectl("get", "pods", selector, "--output=json") or "{}")
        except RunError:  # this user may not see pods
            return ""
        return next(filter(None, map(_waiting, pods.get("items", []))), "")

    def logs(self, submission_id: str, follow: bool) -> Iterator[str]:
        """The log of the pod that submits the job to Ray and relays its output; empty until that pod exists."""
        if follow:
            self._watch(submission_id, ENDED | {"running"})
        if self.status(submission_id).state in {"unknown", "pending"}:
            return
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for piece in stream(self._command("logs", f"job/{submission_id}", *(["--follow"] if follow else []))):
            yield decoder.decode(piece)

    def wait(self, submission_id: str) -> Status:
        """Wait until the job has finished, by watching it."""
        return self._watch(submission_id, ENDED)

    def stop(self, submission_id: str) -> None:
        """Have the operator remove the job's pods; the run can be resumed from its last checkpoint.

        Kueue would soon resume a job that is only suspended; so one in its queue is deleted, and its end kept here.
        """
        if _queue(self._job(submission_id)):
            log = "".join(self.logs(submission_id, follow=False))
            self._kubectl("delete", "rayjob", submission_id, "--ignore-not-found", "--wait")
            keep(submission_id, Status("stopped"), log)
            return
        suspended = json.dumps({"spec": {"suspend": True}})
        self._kubectl("patch", "rayjob", checked_id(submission_id), "--type=merge", f"--patch={suspended}")

    def fetch(self, out: Path, to: Path) -> None:
        """Copy a folder from the shared volume through a small separate pod: the job's own pods are gone by then."""
        check_free(to)
        pod = self._fetcher()
        name = pod["metadata"]["name"]
        with making(to) as part:
            try:
                self._kubectl("apply", "--filename=-", stdin=as_yaml(pod))
                self._kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=600s")
                found = self._kubectl("exec", name, "--", "sh", "-c", 'test ! -d "$0" || echo there', str(out))
                if found.strip() != "there":
                    raise InputError(f"{out}: does not exist on the cluster; {RUNS_KEY} is {self.out}")
                self._kubectl("cp", f"{name}:{out}", str(part))
            finally:
                self._kubectl("delete", "pod", name, "--ignore-not-found", "--wait=false")

    def _fetcher(self) -> dict[str, Any]:
        """An idle pod with the head's image and volumes."""
        template = deepcopy(groups_of(self._manifest["spec"]["rayClusterSpec"])[0]["template"]["spec"])
        head = template["containers"][0]
        own = {key: head[key] for key in ("image", "imagePullPolicy", "securityContext", "volumeMounts") if key in head}
        container = own | {"name": "fetch", "command": ["sleep", str(_FETCH_S)]}
        kept = ("volumes", "imagePullSecrets", "securityContext", "nodeSelector", "tolerations", "serviceAccountName")
        spec = {key: template[key] for key in kept if key in template}
        spec |= {"containers": [container], "restartPolicy": "Never", "activeDeadlineSeconds": _FETCH_S}
        name = f"fedsim-fetch-{secrets.token_hex(4)}"
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    def _watch(self, submission_id: str, states: frozenset[str]) -> Status:
        """Watch a job until it reaches one of the given states, or is deleted."""
        changes = ["--watch", "--output-watch-events", '--output=jsonpath={.type}{"\\n"}']
        reason = ""
        while (status := self.status(submission_id)).state not in states | {"unknown"}:
            with closing(stream(self._command("get", "rayjob", submission_id, *changes))) as told:
                for _ in told:  # Kubernetes closes a watch from time to time; start another
                    if (status := self.status(submission_id)).state in states | {"unknown"}:
                        return status
                    if status.reason not in {"", reason}:
                        reason = status.reason
                        log.warning("%s: pending: %s", submission_id, reason)
        return status

    def _job(self, submission_id: str) -> dict[str, Any]:
        """The job as the cluster has it; empty if it has none."""
        found = self._kubectl("get", "rayjob", checked_id(submission_id), "--ignore-not-found", "--output=json")
        job: dict[str, Any] = json.loads(found) if found.strip() else {}
        return job

    def _kubectl(self, *arguments: str, stdin: str = "") -> str:
        return ask(self._command(*arguments), stdin)

    def _command(self, verb: str, *arguments: str) -> list[str]:
        return ["kubectl", verb, *self._scope, *arguments]


def _contents(files: Mapping[str, Content]) -> dict[str, dict[str, str]]:
    """Files as a ConfigMap has them: text, and other content in base64."""
    text, binary = dict[str, str](), dict[str, str]()
    for name, content in sorted(files.items()):
        if isinstance(content, str):
            text[name] = content
        else:
            binary[name] = b64encode(content).decode()
    return {"data": text, "binaryData": binary} if binary else {"data": text}


def _command(submission: Submission) -> str:
    """The job's command: fedsim in the folder of the job's files; free of characters that a shell would expand.

    Raises:
        InputError: an argument would need quotes.
    """
    for word in submission.arguments:
        if shlex.quote(word) != word:
            raise InputError(f"{word!r:.80}: cannot be sent to KubeRay; use only letters, digits and '-_./=:,@%+'")
    return " ".join(["env", f"--chdir={_MOUNTED}", "fedsim", *submission.arguments, "--address", "auto"])


def _mount(pod: dict[str, Any], name: str) -> None:
    """Mount the ConfigMap in a pod's first container, which is Ray's."""
    container = pod["containers"][0]
    pod["volumes"] = [*(pod.get("volumes") or []), {"name": _VOLUME, "configMap": {"name": name}}]
    mount = {"name": _VOLUME, "mountPath": _MOUNTED, "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]


def _queue(job: dict[str, Any]) -> str:
    """The queue of Kueue that a job's manifest names; empty if it names none."""
    labels = (job.get("metadata") or {}).get("labels") or {}
    return str(labels.get(KUEUE) or "")


def _status(found: dict[str, Any]) -> Status:
    """The state of a job: the operator's verdict, or else Ray's, which is known earlier."""
    told: dict[str, Any] = found.get("status") or {}
    deployed, job = str(told.get("jobDeploymentStatus", "")), str(told.get("jobStatus", ""))
    if deployed in _SUSPENDED and (queue := _queue(found)):
        return Status("pending", f"waits in the queue {queue}")
    state = _DEPLOYED.get(deployed) or (_ENDED.get(job) if deployed == "Complete" else None)
    if state is None:
        return Status("running" if deployed == "Running" and job in {"RUNNING", *_ENDED} else "pending")
    reason = ": ".join(str(told[key]) for key in ("reason", "message") if told.get(key)) if state == "failed" else ""
    return Status(state, " ".join(reason.split())[:300])


def _waiting(pod: dict[str, Any]) -> str:
    """Why a pod does not start: no node takes it, or its image or a volume is not there; empty if it does."""
    told, name = pod.get("status") or {}, pod["metadata"]["name"]
    containers = [*(told.get("initContainerStatuses") or []), *(told.get("containerStatuses") or [])]
    waits = [container.get("state", {}).get("waiting") or {} for container in containers]
    waits += [
        one for one in told.get("conditions") or [] if one.get("type") == "PodScheduled" and one["status"] != "True"
    ]
    reasons = [one for one in waits if one.get("reason", "") not in _ORDINARY]
    parts = [name, *(reasons[0].get(key, "") for key in ("reason", "message"))] if reasons else []
    return " ".join(": ".join(filter(None, parts)).split())[:300]
