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
from fedsim.engine.place.cores import cores_here
from fedsim.engine.ray import private, reaper

LEAST_FILES = 256
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
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from error
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
            **private.init_in(str(folder / "r")),
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
    """RAY_TMPDIR, or the system's folder for temporary files; /tmp if paths of Ray's sockets would be too long.

    Raises:
        InputError: RAY_TMPDIR does not name a folder that Ray can use.
    """
    named = os.environ.get("RAY_TMPDIR")
    if named and not (Path(named).is_dir() and os.access(named, os.W_OK | os.X_OK)):
        raise InputError(f"RAY_TMPDIR: {named} is not a writable folder; create it, or unset the variable")
    if named and not named.isascii():
        raise InputError(f"RAY_TMPDIR: {named} has non-ASCII characters, which Ray cannot use; name another folder")
    base = named or tempfile.gettempdir()
    return base if len(os.fsencode(base)) <= _LONGEST_BASE and base.isascii() else "/tmp"


def _check_reachable(address: str) -> None:
    """Check that an address answers, since Ray would try for a minute; `auto` and other words are left to it."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from error
