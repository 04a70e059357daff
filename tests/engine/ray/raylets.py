"""Somebody else's cluster of three raylets on this machine."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

CLUSTER = """
import json, os, sys
import ray
from ray.cluster_utils import Cluster
ray.__version__ = os.environ.get("CLUSTERS_RAY", ray.__version__)
alive = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 8}
head = {"num_cpus": 1, "include_dashboard": False, "_system_config": alive}
cluster = Cluster(initialize_head=True, head_node_args=head)
for labels in json.loads(sys.argv[1]):
    cluster.add_node(wait=False, num_cpus=1, labels=labels)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def cluster(
    second: Mapping[str, str] | None = None, third: Mapping[str, str] | None = None, **environment: str
) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Three raylets of one core each, with a token of their own; the process that has them, and what a driver needs.

    The second and the third may have labels.
    """
    labels = json.dumps([second or {}, third or {}])
    keys = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command, its_own = [sys.executable, "-c", CLUSTER, labels], {**os.environ, **keys, **environment}
    with subprocess.Popen(command, text=True, env=its_own, **pipes) as head:
        try:
            assert head.stdout is not None
            address = next(line.strip() for line in head.stdout if line.startswith("127."))
            yield psutil.Process(head.pid), {**keys, "ADDRESS": address}
        finally:
            head.communicate()


STAY = """
import os, ray
def stay(parameters, head):
    parameters.node_ip_address = "127.0.0.1"
    ray._private.services.get_node_ip_address = lambda *_: "127.0.0.1"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
"""  # as fedsim.jobs.loopback, which the node may lack
JOIN = """
hostname other
for pair in "$@"; do mount --bind "${pair%%=*}" "${pair#*=}" || exit 99; done
exec ray start --address="$ADDRESS" --num-cpus=1 --block --disable-usage-stats --temp-dir="$TEMPORARY" \\
    --dashboard-agent-listen-port=0
"""


@contextmanager
def joined(keys: dict[str, str], *mounts: str, **environment: str) -> Iterator[None]:
    """A fourth node, called `other`, that finds something else at some paths: mounts are SOURCE=TARGET."""
    apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a node with files of its own needs root")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="f", dir="/tmp") as temporary:
        Path(temporary, "hook_of_tests.py").write_text(STAY)
        found = os.pathsep.join([temporary, environment.pop("PYTHONPATH", os.environ.get("PYTHONPATH", ""))])
        its_own = {**os.environ, **keys, "PATH": path, "TEMPORARY": f"{temporary}/r", **environment}
        its_own |= {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_START_HOOK": "hook_of_tests.stay",
            "PYTHONPATH": found,
        }
        log = Path(temporary, "log")
        with (
            log.open("w") as said,
            subprocess.Popen(
                [*apart, "bash", "-c", JOIN, "bash", *mounts], env=its_own, stdout=said, stderr=said
            ) as it,
        ):
            try:
                deadline = time.monotonic() + 240
                while "Ray runtime started" not in log.read_text():
                    assert it.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.2)
                yield
            finally:
                it.kill()
