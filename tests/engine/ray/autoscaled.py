"""Somebody else's cluster that grows: one raylet of one core, and Ray's autoscaler, which starts more of them."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

HEAD = "f" * 51 + "00000"  # the id by which the provider of Ray's own tests knows the head
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"

COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")


@contextmanager
def growing(most: int) -> Iterator[dict[str, str]]:
    """What a driver needs for a cluster of one node that may become `1 + most`; idle ones end after six seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    one = {"resources": {"CPU": 1}, "node_config": {}}
    config = {
        "cluster_name": "growing", "max_workers": most, "idle_timeout_minutes": 0.1, "upscaling_speed": 1.0, "auth": {},
        "provider": {"type": "external", "module": PROVIDER, "gcs_address": address, "head_node_id": HEAD,
                     "launch_multiple": True},
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": {**one, "max_workers": 0},
                                 "worker": {**one, "min_workers": 0, "max_workers": most}},
        "file_mounts": {}, "head_node": {}, "worker_nodes": {}, "cluster_synced_files": [],
        **{f"{when}_commands": list[str]() for when in COMMANDS},
    }  # fmt: skip
    keys = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    own = {
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_CLOUD_INSTANCE_ID": HEAD,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="f", dir="/tmp") as folder:
        file, log = Path(folder, "autoscaler.yaml"), Path(folder, "log")
        file.write_text(json.dumps(config))  # JSON is YAML
        words = [
            Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={address.rpartition(':')[2]}",
            "--node-ip-address=127.0.0.1", "--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats",
            f"--temp-dir={folder}/r", "--dashboard-agent-listen-port=0", f"--autoscaling-config={file}",
        ]  # fmt: skip
        with (
            log.open("w") as said,
            subprocess.Popen(words, env={**os.environ, **keys, **own}, stdout=said, stderr=said) as head,
        ):
            try:
                yield {**keys, "ADDRESS": address}
            finally:
                nodes = psutil.Process(head.pid).children(recursive=True)
                head.terminate()
                head.wait()
                for process in nodes:  # the autoscaler's nodes outlive it
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                psutil.wait_procs(nodes)
