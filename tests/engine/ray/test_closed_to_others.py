"""A Ray that fedsim starts is closed to others, whatever else is said about Ray on the machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

pytestmark = pytest.mark.ray

WORKLOAD = """
name: small
federation:
  cache: {cache}
  matrix: [32, 32]
  sites:
    - {{name: A, source: {{format: phantom, subjects: 3, slices: 2, size: 32}}}}
    - {{name: B, source: {{format: phantom, subjects: 3, slices: 2, size: 32}}}}
model: {{channels: 2, pools: 1}}
algorithm: {{name: fedavg}}
training: {{rounds: 1}}
engine: {{clients_per_actor: auto}}
"""
DRIVER = """
import json, os, sys
import ray  # before fedsim could set anything
from fedsim import load_workload
from fedsim.engine.simulation import Simulation
with Simulation(load_workload(sys.argv[1]), sys.argv[2]) as simulation:
    simulation.run()
    print(json.dumps([ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"]]), flush=True)
    sys.stdin.read()
print(os.environ["RAY_AUTH_MODE"], "RAY_AUTH_TOKEN" in os.environ)
"""
CLIENT = """
import logging, sys, ray
ray.init(sys.argv[1], logging_level=logging.CRITICAL)
print("let in", ray.cluster_resources()["CPU"] > 0)
"""
OLD_TOKEN = "0" * 64


class Started(NamedTuple):
    """A Ray that fedsim started, with actors, in a process whose user had switched authentication off."""

    address: str
    token: str
    environment: dict[str, str]
    home: Path
    temporary: Path
    processes: list[psutil.Process]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    home = tmp_path_factory.mktemp("home")
    temporary = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))  # short, as sockets' paths may not be long
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(OLD_TOKEN)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "RAY_AUTH_MODE": "disabled"}
    (home / "small.yaml").write_text(WORKLOAD.format(cache=home / "cache"))
    command = [sys.executable, "-c", DRIVER, home / "small.yaml", home / "run"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        address, token = json.loads(driver.stdout.readline())
        process = psutil.Process(driver.pid)
        yield Started(address, token, environment, home, temporary, [process, *process.children(recursive=True)])
        said, _ = driver.communicate()
    assert said == "disabled False\n", "what the user had set is set again"
    shutil.rmtree(temporary)


def test_nothing_listens_beyond_loopback(started: Started) -> None:
    listening = {
        (process.name(), socket.laddr.ip.removeprefix("::ffff:"))
        for process in started.processes
        for socket in process.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN or not socket.raddr
    }
    names = {name for name, _ in listening}
    assert {"raylet", "gcs_server"} <= names
    assert any(name.startswith("ray::Host") for name in names)
    assert {ip for _, ip in listening} == {"127.0.0.1"}


def test_who_has_no_token_is_refused(started: Started) -> None:
    clients = {
        "without": {"RAY_AUTH_MODE": "disabled"},
        "old": {"RAY_AUTH_MODE": "token"},
        "right": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": started.token},
    }
    command = [sys.executable, "-c", CLIENT, started.address]
    reach = {  # without the first they ask beyond loopback; the second is how often they ask
        **started.environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_NUM_REDIS_GET_RETRIES": "2",
    }  # fmt: skip
    asked = {
        who: subprocess.Popen(command, env=reach | keys, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for who, keys in clients.items()
    }
    said = {who: client.communicate(timeout=120)[0] for who, client in asked.items()}
    assert {who for who, text in said.items() if "let in True" in text} == {"right"}
    for who in ("without", "old"):
        assert "Unauthenticated" in said[who] or "AuthenticationError" in said[who], said[who]


def test_the_token_is_in_no_file_and_no_command_line(started: Started) -> None:
    assert len(started.token) == 64
    assert started.token != OLD_TOKEN
    files = [path for top in (started.home, started.temporary) for path in top.rglob("*") if path.is_file()]
    assert {"raylet.out", "workload.yaml"} <= {path.name for path in files}
    assert [path for path in files if started.token.encode() in path.read_bytes()] == []
    assert not any(started.token in " ".join(process.cmdline()) for process in started.processes)


def test_nobody_else_can_enter_rays_folder(started: Started) -> None:
    (folder,) = started.temporary.glob("fedsim-ray-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.glob("*/session_*/sockets/raylet*"))
