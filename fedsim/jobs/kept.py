"""What a job that has ended leaves in the state folder, whatever becomes of its cluster: its state and its log.

python -m fedsim.jobs.kept ID COMMAND...    runs a command on this machine and keeps both, as it ends
"""

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

from fedsim.core.files import write_json
from fedsim.jobs.common import checked_id
from fedsim.jobs.state import state_folder
from fedsim.jobs.target import Status

_LOG, _END = "output.txt", "ended.json"
_INTERRUPTED = 130  # fedsim's exit status after a signal, with a checkpoint written


def kept_status(job_id: str) -> Status | None:
    """How a job ended, if that is known here."""
    try:
        return Status(**json.loads((_folder(job_id) / _END).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def kept_log(job_id: str) -> str:
    """What an ended job had printed; empty if it is not known here."""
    path = _folder(job_id) / _LOG
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def keep(job_id: str, status: Status, log: str) -> None:
    """Note how a job ended, and all that it printed."""
    folder = _made(job_id)
    (folder / _LOG).write_text(log, encoding="utf-8")
    write_json(folder / _END, asdict(status))


def forget(job_id: str) -> None:
    """A job is sent again: how it ended before says nothing any more."""
    (_folder(job_id) / _END).unlink(missing_ok=True)


def status_of_exit(code: int, log: str) -> Status:
    """What fedsim's exit status means, with the last line that it said of itself."""
    if code in {0, _INTERRUPTED}:
        return Status("stopped" if code else "succeeded")
    said = [line.removeprefix("fedsim: ") for line in log.splitlines() if line.startswith("fedsim: ")]
    return Status("failed", said[-1] if said else f"exit status {code}")


def run_kept(job_id: str, command: list[str]) -> int:
    """Run a command, show what it prints, and keep that and how it ended; returns its exit status."""
    folder = _made(job_id)
    for number in (signal.SIGTERM, signal.SIGINT):  # they are for the command, which has a checkpoint to write
        signal.signal(number, lambda *_: None)
    with (
        (folder / _LOG).open("ab") as log,
        subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        said = _copied(process.stdout, log) if process.stdout else ""
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    write_json(folder / _END, asdict(status_of_exit(code, said)))
    return code


def _copied(source: IO[bytes], log: IO[bytes]) -> str:
    """All that comes, shown and written on; returns its end."""
    end = b""
    while piece := source.read(2**16):
        log.write(piece)
        log.flush()
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
