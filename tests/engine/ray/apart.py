"""A node that joins another person's cluster, with other software or another clock than the driver has."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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
until ray start --address="$ADDRESS" --num-cpus=1 --block --disable-usage-stats --temp-dir="$TEMPORARY" \\
    --dashboard-agent-listen-port=0; do sleep 1; done
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
