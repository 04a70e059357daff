"""A Ray cluster of several raylets on this machine, for benchmarks of what happens between nodes."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for _ in range(int(sys.argv[1]) - 1):
    cluster.add_node(wait=False, num_cpus=1)
cluster.wait_for_nodes(300)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def raylets(count: int) -> Iterator[str]:
    """Start them on loopback with a token, which this process is given in its environment; yields their address."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update({**token, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
    command = [sys.executable, "-c", _CLUSTER, str(count)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as head:
        try:
            assert head.stdout is not None
            yield next(line.strip() for line in head.stdout if line.startswith("127."))
        finally:
            head.communicate()
