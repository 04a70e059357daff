"""What is kept of a finished job in the state folder, independent of its cluster: its state and its log.

python -m fedsim.jobs.kept ID COMMAND...    runs a command on this machine and keeps both when it exits
"""

import io
import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

from fedsim.core.errors import WriteError
from fedsim.core.files import write_json, writing
from fedsim.jobs.common import checked_id
from fedsim.jobs.state import state_folder
from fedsim.jobs.target import Status

_LOG, _END = "output.txt", "ended.json"
_INTERRUPTED = 130  # fedsim's exit status after a signal, with a checkpoint written


def kept_status(job_id: str) -> Status | None:
    """The final status of a job, if it is known here."""
    try:
        return Status(**json.loads((_folder(job_id) / _END).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def kept_log(job_id: str) -> str:
    """The output of a finished job; empty if it is not known here."""
    path = _folder(job_id) / _LOG
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def keep(job_id: str, status: Status, log: str) -> None:
    """Record the final status and the output of a job.

    Raises:
        WriteError: the state folder cannot be written.
    """
    folder = _folder(job_id)
    with writing(folder):
        _made(job_id)
        (folder / _LOG).write_text(log, encoding="utf-8")
    write_json(folder / _END, asdict(status))


def forget(job_id: str) -> None:
    """Forget the final status of a job that is being resubmitted."""
    (_folder(job_id) / _END).unlink(missing_ok=True)


def status_of_exit(code: int, log: str) -> Status:
    """The job status for an exit status of fedsim, with the last error line in its log."""
    if code in {0, _INTERRUPTED}:
        return Status("stopped" if code else "succeeded")
    errors = [line.removeprefix("fedsim: ") for line in log.splitlines() if line.startswith("fedsim: ")]
    return Status("failed", errors[-1] if errors else f"exit status {code}")


def run_kept(job_id: str, command: list[str]) -> int:
    """Run a command, pass its output through, and keep the output and the final status; returns the exit status."""
    folder = _made(job_id)
    for number in (signal.SIGTERM, signal.SIGINT):  # left to the command, which writes a checkpoint first
        signal.signal(number, lambda *_: None)
    with (
        (folder / _LOG).open("ab", buffering=0) as log,
        subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        output = _copied(process.stdout, log) if process.stdout else ""
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    try:
        write_json(folder / _END, asdict(status_of_exit(code, output)))
    except WriteError as error:
        print(f"fedsim: {error}", file=sys.stderr)  # noqa: T201 - the job's result stands
    return code


def _copied(source: IO[bytes], log: io.RawIOBase) -> str:
    """Copy a stream to stdout and to the log; returns the last 64 KiB."""
    end = b""
    while piece := source.read(2**16):
        with suppress(OSError):  # a full disk costs the job its log here, nothing else
            log.write(piece)
        end = (end + piece)[-(2**16) :]
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return end.decode(errors="replace")


def _made(job_id: str) -> Path:
    folder = _folder(job_id)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _folder(job_id: str) -> Path:
    return state_folder() / "jobs" / checked_id(job_id)


if __name__ == "__main__":
    sys.exit(run_kept(sys.argv[1], sys.argv[2:]))
