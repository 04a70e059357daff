"""Any Ray cluster, through the Jobs API of its dashboard."""

import asyncio
import logging
import os
import shlex
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fedsim.core.errors import InputError, RunError
from fedsim.engine.ray.token import refused, user_token
from fedsim.jobs.common import as_bytes, checked_files, checked_id, fetch_shared, shown
from fedsim.jobs.target import ENDED, State, Status, Submission

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from fedsim.engine.place.node import Node

_STATES: dict[str, State] = {
    "PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped",
}  # fmt: skip
_STOP_S = 600
"""How long a stopped job may take to finish its round and write a checkpoint before Ray kills it."""
_TALKATIVE = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers that report each upload and each connection."""
_NO_PROXY = ("NO_PROXY", "no_proxy")
_OTHER_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class RayJobs:
    """A Ray cluster with a reachable dashboard."""

    out: Path | None = None

    def __init__(self, name: str, url: str) -> None:
        """Args: the value of --cluster, and http(s)://HOST:PORT."""
        self.name = name
        self._url = url

    def render(self, submission: Submission) -> str:
        """Id, entry point, metadata and environment of the job, and the files in its working directory."""
        files = [shown(f"working_dir/{name}", content) for name, content in sorted(checked_files(submission).items())]
        job = {"submission_id": checked_id(submission.id), **self._request(submission)}
        return "\n".join(["# Ray job", *(f"{key}: {value}" for key, value in job.items()), "", *files])

    def nodes(self) -> "tuple[Node, ...] | None":
        """The nodes that are alive and have cores, the head first: that is where the driver runs."""
        with self._asking():
            answer = self._client._do_request("GET", "/api/v0/nodes").json()
        listed = answer["data"]["result"]["result"] if answer.get("result") else []
        alive = [node for node in listed if node["state"] == "ALIVE" and node["resources_total"].get("CPU")]
        alive.sort(key=lambda node: (not node["is_head_node"], node["node_id"]))
        return tuple(map(_node, alive)) or None

    def submit(self, submission: Submission) -> None:
        """Upload the files and submit the job; a finished job of the same id is deleted first.

        If several processes do so at once, Ray accepts one submission, which serves all of them.
        """
        request = self._request(submission)
        environment = request.pop("env_vars")
        with tempfile.TemporaryDirectory() as folder:
            for name, content in checked_files(submission).items():
                (Path(folder) / name).write_bytes(as_bytes(content))
            runtime = {"working_dir": folder, "env_vars": environment}
            with self._asking():
                if self.status(submission.id).state in ENDED:
                    self._delete(submission.id)
                try:
                    self._client.submit_job(submission_id=submission.id, runtime_env=runtime, **request)
                except RuntimeError as error:
                    if "already exists" not in str(error):
                        raise RunError(f"--cluster {self.name}: refused the job: {_last_line(str(error))}") from error

    def status(self, submission_id: str) -> Status:
        """The present status of a job."""
        with self._asking():
            try:
                info = self._client.get_job_info(checked_id(submission_id))
            except RuntimeError as error:
                if "404" in str(error):
                    return Status("unknown")
                raise RunError(f"--cluster {self.name}: {_last_line(str(error))}") from error
        state = _STATES[str(info.status.value)]
        return Status(state, _reason(info.message or "") if state == "failed" else "")

    def logs(self, submission_id: str, follow: bool) -> Iterator[str]:
        """A job's output, in pieces; of a resubmitted job, the output of all attempts."""
        if self.status(submission_id).state == "unknown":
            raise InputError(f"--cluster {self.name}: has no job {submission_id} (or no longer); submit it again")
        with self._asking():
            if follow:
                yield from self._followed(submission_id)
            else:
                yield self._client.get_job_logs(submission_id)

    def wait(self, submission_id: str) -> Status:
        """Wait until a job has finished, which is when its log ends."""
        if self.status(submission_id).state not in {*ENDED, "unknown"}:
            for _ in self.logs(submission_id, follow=True):
                pass
        return self.status(submission_id)

    def stop(self, submission_id: str) -> None:
        """Stop a job, which may write a checkpoint first, and wait until it has finished."""
        with self._asking():
            self._client.stop_job(checked_id(submission_id))
        self.wait(submission_id)

    def fetch(self, out: Path, to: Path) -> None:
        """Copy a folder that this machine can see; the Jobs API itself serves no files."""
        fetch_shared(out, to, "is not on this machine; copy it from the cluster, for example with ray rsync-down")

    # What subclasses override

    def _where(self) -> tuple[str, str]:
        """The dashboard's URL and the user's token; empty if there is none."""
        return self._url, user_token()

    def _begins(self, submission: Submission) -> list[str]:
        """The command to run on the cluster, without its arguments."""
        return ["fedsim"]

    def _environment(self) -> dict[str, str]:
        """Environment variables for the job."""
        return {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S)}

    # Talking to Ray

    @cached_property
    def _client(self) -> "JobSubmissionClient":
        url, token = self._where()
        _check_reachable(self.name, url)
        from ray.job_submission import JobSubmissionClient

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        with _exactly_there(url):  # without a header, Ray sends the first token that it saw in this process
            try:
                return JobSubmissionClient(url, headers={"Authorization": f"Bearer {token}" if token else ""})
            except RuntimeError as error:  # 404, or a Ray of years ago
                raise InputError(
                    f"--cluster {self.name}: no Ray dashboard answers there ({_last_line(str(error))}); give the "
                    "address at which a browser shows it, with its path if it has one"
                ) from error

    def _request(self, submission: Submission) -> dict[str, Any]:
        command = [*self._begins(submission), *submission.arguments, "--address", "auto"]  # Ray passes it to the job
        return {
            "entrypoint": shlex.join(command),
            "metadata": {"name": submission.id, "out": str(submission.out)},
            "env_vars": self._environment(),
        }

    def _delete(self, submission_id: str) -> None:
        """Delete a job; another process may just have done so, and resubmitted it."""
        try:
            self._client.delete_job(submission_id)
        except RuntimeError as error:
            logging.getLogger("fedsim").debug("%s", error)

    def _followed(self, submission_id: str) -> Iterator[str]:
        pieces = self._client.tail_job_logs(submission_id)

        async def following() -> str | None:
            return await anext(pieces, None)

        with asyncio.Runner() as runner:
            try:
                while (piece := runner.run(following())) is not None:
                    yield piece
            except RuntimeError as error:
                raise RunError(f"--cluster {self.name}: {_last_line(str(error))}") from error

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """The error, in one line, for a cluster that does not answer as expected."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise InputError(f"--cluster {self.name}: {refused(given='failed' in str(error))}") from error
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"--cluster {self.name}: no Ray dashboard answers there ({_last_line(str(error))})"
            ) from error


def _check_reachable(name: str, url: str) -> None:
    """Check that the address answers; Ray itself would wait for minutes."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((host, port), timeout=5).close()
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(f"--cluster {name}: no Ray dashboard answers there ({error})") from error


@contextmanager
def _exactly_there(url: str) -> Iterator[None]:
    """Make Ray use the address of --cluster, not one from the environment, and no proxy, which would see the token."""
    spared = [*(os.environ.get(name) for name in _NO_PROXY), urlsplit(url).hostname]
    for name in _NO_PROXY:
        os.environ[name] = ",".join(dict.fromkeys(filter(None, spared)))
    before = {key: os.environ.pop(key) for key in _OTHER_ADDRESSES if key in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _node(known: dict[str, Any]) -> "Node":
    """A node as the cluster's API describes it."""
    from fedsim.engine.place.node import Node

    has = known["resources_total"]
    memory = has.get("memory", 0)
    return Node(
        id=known["node_id"],
        name=known["node_name"],
        cpus=has["CPU"],
        gpus=has.get("GPU", 0),
        actor_memory=memory,
        total_memory=memory + has.get("object_store_memory", 0),
        labels=known.get("labels") or {},
    )


def _reason(message: str) -> str:
    """The last error line of fedsim in Ray's message, which ends with the log; else its last line."""
    lines = [line.strip() for line in message.rpartition("Running entrypoint for job")[2].splitlines() if line.strip()]
    errors = [line.removeprefix("fedsim: ") for line in lines if line.startswith("fedsim: ")]
    return (errors or lines or ["no reason given"])[-1][:300]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no answer"
