"""Somebody else's cluster of three raylets on this machine."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
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
    second: Mapping[str, str] | None = None, third: Mapping[str, str] | None = None
) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Three raylets of one core each, with a token of their own; the process that has them, and what a driver needs.

    The second and the third may have labels.
    """
    labels = json.dumps([second or {}, third or {}])
    keys = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-c", CLUSTER, labels]
    with subprocess.Popen(command, text=True, env={**os.environ, **keys}, **pipes) as head:
        try:
            assert head.stdout is not None
            address = next(line.strip() for line in head.stdout if line.startswith("127."))
            yield psutil.Process(head.pid), {**keys, "ADDRESS": address}
        finally:
            head.communicate()
