"""Clusters of others: a node with other software or another clock, another Ray, a wrong token."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path

import pytest

import fedsim
from fedsim.core.errors import InputError
from fedsim.engine.ray import cluster as connecting
from fedsim.engine.ray.token import user_token
from fedsim.workload.schema import Workload
from tests.conftest import COMMAND

from .apart import joined
from .raylets import cluster

PACKAGE = Path(fedsim.__file__).parent
NUMPY = Path(str(metadata.distribution("numpy").locate_file(""))) / f"numpy-{metadata.version('numpy')}.dist-info"
Keys = dict[str, str]


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with ExitStack() as stack:
        for _ in range(6):  # Ray gives a node 30 s, too few where all cores are busy
            with suppress(RuntimeError):
                _, keys = stack.enter_context(cluster())
                break
        yield keys


@pytest.fixture
def command(workload: Callable[..., Workload], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    workload()
    settings = ["engine.backend=ray", "training.rounds=1", "engine.clients_per_actor=auto"]

    def run(keys: Keys) -> subprocess.CompletedProcess[str]:
        words = [word for setting in settings for word in ("--set", setting)]
        where = ["--out", tmp_path / "run", "--address", keys["ADDRESS"]]
        call = [*COMMAND, "run", tmp_path / "small.yaml", *words, *where]
        return subprocess.run(call, env={**os.environ, **keys}, capture_output=True, text=True, check=False)

    return run


Run = Callable[[Keys], subprocess.CompletedProcess[str]]


def without_fedsim(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    found = {PACKAGE, *(Path(entry, "fedsim") for entry in sys.path)}
    return [f"{folder / 'empty'}={place}" for place in found if (place / "__init__.py").is_file()]


def with_another(folder: Path) -> list[str]:
    shutil.copytree(PACKAGE, folder / "other", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "other" / "mri" / "masks.py").write_text("# of last year\n")
    return [f"{folder / 'other'}={PACKAGE}"]


def with_other_numpy(folder: Path) -> list[str]:
    text = (NUMPY / "METADATA").read_text()
    (folder / "METADATA").write_text(text.replace(f"Version: {metadata.version('numpy')}\n", "Version: 9.9.0\n"))
    return [f"{folder / 'METADATA'}={NUMPY / 'METADATA'}"]


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (without_fedsim, 1, "fedsim: node other has no fedsim in the environment that its Ray was started in; install"),
        (with_another, 1, "fedsim: node other has another fedsim than the driver (other files of the same version); "),
        (with_other_numpy, 0, f"node other has numpy 9.9.0 and not {metadata.version('numpy')}: install the same on"),
    ],
)
def test_other_software_on_a_node_is_named(
    keys: Keys, command: Run, tmp_path: Path, change: Callable[[Path], list[str]], status: int, said: str
) -> None:
    with joined(keys, *change(tmp_path)):
        done = command(keys)
    assert done.returncode == status, done.stderr
    assert said in " ".join(done.stderr.split())


@pytest.mark.ray
@pytest.mark.long
def test_another_clock_on_a_node_is_named(keys: Keys, command: Run, tmp_path: Path) -> None:
    ahead = "import time\nours = time.time\ntime.time = lambda: ours() + 300\n"
    (tmp_path / "sitecustomize.py").write_text(ahead)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with joined(keys, PYTHONPATH=path):
        done = command(keys)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "node other: its clock differs from the driver's by " in said
    assert "and its times in clients.parquet are wrong by as much" in said


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "the token is not the one of this cluster; RAY_AUTH_TOKEN_PATH names the file"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/none"}, "it asks for a token; RAY_AUTH_TOKEN_PATH names"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "disabled"}, "it asks for a token; RAY_AUTH_TOKEN_PATH names the"),
    ],
)
def test_a_stale_token_is_said(keys: Keys, command: Run, tmp_path: Path, token: Keys, said: str) -> None:
    done = command({**keys, "HOME": str(tmp_path), **token})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"fedsim: --address {keys['ADDRESS']}: {said}")


@pytest.mark.ray
@pytest.mark.long
def test_another_ray_is_said(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.59.1'\n")
    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
            _, keys = stack.enter_context(cluster())
        done = command(keys)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    said = f"its software is Ray 2.59.1, Python {platform.python_version()}, and this environment's Ray "
    assert done.stderr.startswith(f"fedsim: --address {keys['ADDRESS']}: {said}"), done.stderr
    assert done.stderr.endswith("; install the same on both\n")


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_token_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, refused: bool
) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(mode)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    if refused:
        with pytest.raises(InputError, match=rf"token: other users have access .* \(mode {mode:o}\), .*: chmod 600 "):
            user_token()
    else:
        assert user_token() == "secret"


def test_an_address_of_ipv6_is_reached() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    address = f"[::1]:{server.getsockname()[1]}"
    with server:
        connecting._check_reachable(address)
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        connecting._check_reachable(address)


@pytest.fixture
def tiny() -> Iterator[Path]:
    """A disk of 8 MB, at a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="f", dir="/tmp") as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=False).returncode:
            pytest.skip("mounting a small file system needs root")
        yield Path(folder)
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_too_small_for_ray_is_passed_over_or_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tiny))
    assert connecting._base() == "/tmp"
    monkeypatch.setenv("RAY_TMPDIR", str(tiny))
    said = rf"^RAY_TMPDIR: {tiny} has 8\.39 MB free, and Ray needs 100 MB for temporary files; name a larger disk with"
    with pytest.raises(InputError, match=said):
        connecting._base()


@pytest.mark.ray
@pytest.mark.long
def test_a_small_shared_memory_and_proxies_do_not_matter(workload: Callable[..., Workload], tmp_path: Path) -> None:
    """The object store then lies in the temporary folder; no proxy is asked for what is on this machine."""
    workload()
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"), "http://127.0.0.1:9")
    proxies |= {name.upper(): value for name, value in proxies.items()}
    settings = ["--set", "engine.backend=ray", "--set", "training.rounds=1", "--out", str(tmp_path / "run")]
    small = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"'
    apart = ["unshare", "--mount", "bash", "-c"]
    if subprocess.run([*apart, small, "bash", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    command = [*apart, small, "bash", *COMMAND, "run", str(tmp_path / "small.yaml"), *settings]
    done = subprocess.run(command, env={**os.environ, **proxies}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
