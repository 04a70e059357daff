"""Helpers for clusters that are driven through their own programs: running those, and checking names."""

import re
import shutil
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.core.errors import InputError, RunError
from fedsim.core.files import making
from fedsim.jobs.target import Content, Submission, Task

if TYPE_CHECKING:
    from fedsim.engine.place.node import Node

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONG = 20_000  # characters of a file that a dry run does not show
_KUBECTLS_LOG = re.compile(r"[EW]\d{4} ")  # kubectl logs the same error five times
_SILENT = ("unable to contact", "failed to fetch config", "connection to the server", "unable to connect")
_REMEDIES = {
    "Invalid job array specification": "this site allows fewer tasks than the study has points (scontrol show config, "
    "MaxArraySize); use --per-point",
    "(Forbidden)": "this user needs the rights to get, watch, create, patch and delete rayjobs, configmaps and pods, "
    "and to create pods/exec, in this namespace",
}
"""What to do about an answer, by words in it."""


def checked_id(submission_id: str) -> str:
    """Check a job id, which becomes a file name and an argument.

    Raises:
        InputError: it is not a job id.
    """
    if not _ID.fullmatch(submission_id):
        raise InputError(
            f"{submission_id!r:.60}: is not a job id; ids look like fedsim-quickstart-0a1b2c3d, see fedsim jobs list"
        )
    return submission_id


def checked_files(submission: Submission | Task) -> Mapping[str, Content]:
    """The files of a submission, once all their names are known to stay in its folder.

    Raises:
        InputError: a name is unsafe.
    """
    for name in submission.files:
        if not _FILE.fullmatch(name):
            raise InputError(f"{name!r:.60}: cannot be sent with the job; use only letters, digits, '.', '_', '-'")
    return submission.files


def as_bytes(content: Content) -> bytes:
    """What a file has."""
    return content.encode() if isinstance(content, str) else content


def shown(name: str | Path, content: Content) -> str:
    """A file for a dry run: its name as a comment and its text; the size of what is long, or no text."""
    text = content.rstrip() if isinstance(content, str) and len(content) <= _LONG else f"# ({len(content):,} bytes)"
    return f"# {name}\n{text}\n"


def ask(command: list[str], stdin: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a program and return its output.

    Raises:
        InputError: it is not installed, or finds no cluster.
        RunError: it fails; with its reason in one line.
    """
    try:
        done = subprocess.run(command, input=stdin, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise _missing(command[0]) from error
    if done.returncode:
        reason = _reason_in(done.stderr, command[0]) or f"exit status {done.returncode}"
        kind = InputError if any(words in reason.lower() for words in _SILENT) else RunError
        raise kind(f"{command[0]}: {reason}{_remedy(reason)}")
    return done.stdout


def stream(command: list[str]) -> Generator[bytes, None, None]:
    """Run a program and yield its output as it comes; it is terminated when the reader stops.

    Raises:
        InputError: it is not installed.
        RunError: it fails; with its reason in one line.
    """
    try:
        process = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise _missing(command[0]) from error
    with process:
        try:
            while process.stdout and (piece := process.stdout.read(2**16)):
                yield piece
            failed = process.wait()
        finally:
            process.terminate()
        messages = process.stderr.read().decode(errors="replace") if process.stderr else ""
        if failed:
            raise RunError(f"{command[0]}: {_reason_in(messages, command[0]) or f'exit status {failed}'}")


def _missing(program: str) -> InputError:
    """The error for a program that is not installed."""
    return InputError(f"{program} is not on PATH; submit from a machine that has it, or choose another --cluster")


def _reason_in(messages: str, program: str) -> str:
    """The relevant part of a program's messages in one line: its errors, else its first line."""
    lines = [line.strip().removeprefix(f"{program}: ") for line in messages.splitlines() if line.strip()]
    lines = [line for line in lines if not _KUBECTLS_LOG.match(line)] or lines
    errors = [line.removeprefix("error: ") for line in lines if "error" in line.lower()]
    return "; ".join(errors or lines[:1])[:300]


def _remedy(reason: str) -> str:
    """What to do about a program's answer, for the end of its line; empty if it says all there is."""
    found = [remedy for words, remedy in _REMEDIES.items() if words in reason]
    return f"; {found[0]}" if found else ""


def planned_node(name: str, cpus: float, gpus: float, memory: float, labels: Mapping[str, str] | None = None) -> "Node":
    """A node that a job would get, as Ray would count its resources.

    Args:
        name: For messages.
        cpus: Cores.
        gpus: Number of GPUs.
        memory: All of its memory [bytes].
        labels: What Ray will be given there; None: that is not known.
    """
    from fedsim.engine.place.labels import OF_RAY
    from fedsim.engine.place.node import RAY_COUNTS, Node

    return Node(
        id=name, name=name, cpus=cpus, gpus=gpus, actor_memory=RAY_COUNTS * memory, total_memory=memory,
        labels=labels or {}, unknown_labels="" if labels is None else OF_RAY,
    )  # fmt: skip


def fetch_shared(out: Path, to: Path, absent: str) -> None:
    """Copy a folder that this machine can see.

    Raises:
        InputError: it cannot, and `absent` is the message; or `to` exists.
    """
    if not out.is_dir():
        raise InputError(f"{out}: {absent}")
    check_free(to)
    with making(to) as part:
        shutil.copytree(out, part)


def check_free(to: Path) -> None:
    """Refuse to fetch into an existing folder.

    Raises:
        InputError: `to` exists.
    """
    if to.exists():
        raise InputError(f"{to}: exists; name a new folder")
