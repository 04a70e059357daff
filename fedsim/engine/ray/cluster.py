"""Connecting to Ray, or starting it on this machine: on loopback, with its own token, leaving nothing behind."""

import atexit
import logging
import os
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from fedsim.core.errors import InputError, RunError
from fedsim.core.text import bytes_text
from fedsim.engine.place.cgroups import memory_limit
from fedsim.engine.place.cores import cores_here
from fedsim.engine.place.node import RAY_COUNTS
from fedsim.engine.ray import private, reaper
from fedsim.engine.ray.errors import unconnected
from fedsim.engine.ray.token import refused, user_token

LEAST_FILES = 256
_LEAST_FREE = 100_000_000  # bytes in Ray's temporary folder; its logs and sockets take a few, data that it spills more
_LARGEST_STORE = 10e9  # bytes; a larger one Ray starts only in a /dev/shm of that size
_PREFIX = "fedsim-ray-"
_LONGEST_BASE = 107 - len(f"/{_PREFIX}12345678/r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
"""Longest path of a temporary folder [bytes] in which the paths of Ray's sockets are still valid."""

_own = ExitStack()
"""What is cleaned up with the Ray that was started here."""


def connect(address: str | None) -> tuple[Any, bool]:
    """The module ray, and whether the caller is to `disconnect`.

    Without an address, a Ray that already runs in this process is used as it is; otherwise one is started with this
    job's cores, which only processes of this run can talk to.
    """
    if address == "local":  # what Ray calls the same thing
        address = None
    if address is not None:
        _check_reachable(address)
    import ray  # noqa: PLC0415 - only if Ray is used

    if ray.is_initialized():
        if address is not None:
            raise RunError(f"--address {address}: Ray is already running in this process; call ray.shutdown() first")
        return ray, False
    if address is None:
        _start(ray)
        return ray, True
    token = user_token() if os.environ.get("RAY_AUTH_MODE") == "token" else ""
    if private.refuses(address, token):
        raise InputError(f"--address {address}: {refused(given=bool(token))}, where RAY_AUTH_MODE=token")
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ray.exceptions.AuthenticationError, ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: {unconnected(ray, error)}") from error
    return ray, True


def disconnect() -> None:
    """Close the connection to Ray; a Ray that was started here is stopped and leaves nothing behind.

    That includes Ray's own logs; to read them, start a cluster and name it with --address.
    """
    import ray  # noqa: PLC0415 - only if Ray was used

    _own.close()
    ray.shutdown()
    atexit.unregister(disconnect)


def _start(ray: ModuleType) -> None:
    """Start Ray with this job's cores.

    Raises:
        RunError: it does not start; Ray gives its processes half a minute, and says so with plain exceptions.
    """
    _own.close()  # of a Ray that was stopped without `disconnect`
    _check_open_files()
    atexit.register(disconnect)  # comes before Ray's own handlers, which know nothing of the folder
    try:
        folder = _own.enter_context(_private_folder())
        _own.enter_context(_closed_to_others(ray))
        _own.callback(ray.shutdown)
        ray.init(
            "local", num_cpus=cores_here(), include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
            **private.init_in(str(folder / "r")), **_limits(ray),
        )  # fmt: skip
    except InputError:
        disconnect()
        raise
    except Exception as error:
        disconnect()
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise RunError(
            f"Ray did not start on this machine ({reason}); it may be too busy or short of memory: try again, "
            "or run in one process with --set engine.backend=serial"
        ) from error
    except BaseException:
        disconnect()
        raise


def _limits(ray: ModuleType) -> dict[str, int]:
    """The memory that Ray may count, where a limit of this job's control group is below what Ray sees."""
    limit = memory_limit()
    if limit >= private.memory_seen(ray):
        return {}
    store = min(_LARGEST_STORE, (1 - RAY_COUNTS) * limit)
    return {"object_store_memory": int(store), **private.counting(int(RAY_COUNTS * limit))}


@contextmanager
def _closed_to_others(ray: ModuleType) -> Iterator[None]:
    """Have Ray's processes listen on loopback only, and require a token that only they know.

    RAY_AUTH_MODE and token files are overridden: they are for the user's own clusters. The token is never in a file.
    """
    keys = {
        **private.NO_CLUSTER,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    before = {key: os.environ.get(key) for key in keys}
    _set_environment(keys)
    clusters = private.set_clusters(ray, allowed=False)
    private.read_environment_again(ray)
    try:
        yield
    finally:
        _set_environment(before)
        private.set_clusters(ray, allowed=clusters)
        private.read_environment_again(ray)


def _set_environment(keys: Mapping[str, str | None]) -> None:
    for key, value in keys.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for Ray's sockets, logs and spilled objects that other users cannot enter; Ray's default is open to all.

    It is removed at the end, or when this process is killed, together with every process that still writes there.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_base())).resolve()
    command = [sys.executable, "-IS", reaper.__file__, str(folder), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):  # away from a terminal's Ctrl-C
        yield folder
    shutil.rmtree(folder, ignore_errors=True)  # if the other process was killed


def _check_open_files() -> None:
    """Check the limit of open files: Ray and its driver need about two hundred, and Ray fails without naming it.

    Raises:
        InputError: the hard limit is lower.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_FILES:
        need = f"one on Ray needs {LEAST_FILES}"
        raise InputError(f"a process may have {hard} files open (ulimit -n), and {need}; raise the limit")


def _base() -> str:
    """RAY_TMPDIR, or the system's folder for temporary files; /tmp if Ray cannot use that.

    Raises:
        InputError: RAY_TMPDIR does not name a folder that Ray can use, or no folder has enough space.
    """
    named = os.environ.get("RAY_TMPDIR")
    if named and not (Path(named).is_dir() and os.access(named, os.W_OK | os.X_OK)):
        raise InputError(f"RAY_TMPDIR: {named} is not a writable folder; create it, or unset the variable")
    if named and not named.isascii():
        raise InputError(f"RAY_TMPDIR: {named} has non-ASCII characters, which Ray cannot use; name another folder")
    usable = list(filter(_short, [named] if named else [tempfile.gettempdir(), "/tmp"])) or ["/tmp"]
    free = {base: shutil.disk_usage(base).free for base in usable}
    roomy = [base for base, size in free.items() if size >= _LEAST_FREE]
    if not roomy:
        sizes = " and ".join(f"{base} has {bytes_text(size)} free" for base, size in free.items())
        need = f"Ray needs {bytes_text(_LEAST_FREE)} for temporary files"
        raise InputError(f"{'RAY_TMPDIR: ' if named else ''}{sizes}, and {need}; name a larger disk with RAY_TMPDIR")
    return roomy[0]


def _short(base: str) -> bool:
    """Whether the paths of Ray's sockets in a folder are valid."""
    return len(os.fsencode(base)) <= _LONGEST_BASE and base.isascii()


def _check_reachable(address: str) -> None:
    """Check that an address answers, since Ray would try for a minute; `auto` and other words are left to it."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from error
