"""Trackers of a run or a study, off its critical path: whatever they do costs a round one byte and one warning.

Each tracker has a process, which reads what is new in the run directory when it is told that the ledger has grown. The
pipe to it is the queue: a write never waits, and a pipe that is full belongs to a tracker that hangs. So a slow tracker
catches up later, and one that was lost does when the run is resumed.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil

from fedsim.core.errors import InputError, RunError
from fedsim.engine.host.messages import Row
from fedsim.engine.observer import Observer, Observers
from fedsim.engine.record.ending import is_trained
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds, digest_of_arrays, read_state
from fedsim.engine.tracking import process
from fedsim.trackers.base import Status, Tracker
from fedsim.trackers.tracked import Tracked

log = logging.getLogger("fedsim")

PATIENCE_S = 5.0
"""Seconds that a tracker may do nothing after the end of a run."""
LONGEST_S = 30.0
"""Seconds that it may go on working."""
_LEAST_SHARE = 0.01  # of a core: more than a process that waits takes
_LOOK_EVERY_S = 0.02


class Trackers(Observers):
    """The trackers of a run, which are told that its ledger has grown, or of a study."""

    def __init__(self, trackers: Sequence[Tracker], folder: Path, beside: Observer | None = None) -> None:
        """Start a process for each.

        Args:
            trackers: The workload's.
            folder: Run directory, or folder of a study; may not exist yet.
            beside: Is told all that happens, too.

        Raises:
            InputError: a tracker's library is not installed.
        """
        super().__init__(*filter(None, (beside,)))
        for tracker in trackers:
            _check_installed(tracker)
        self._folder, self._processes = folder, [_Process(tracker, folder) for tracker in trackers]
        self.begun = False
        """Whether a round has ended, or a study has its folder: from then on an error is how it ended."""

    def round_ends(self, row: Row) -> None:
        """Say so."""
        super().round_ends(row)
        self.begun = True
        for one in self._processes:
            one.say(process.GREW)

    def end(self, status: Status | None = None) -> None:
        """Let the trackers finish, all at the same time; by default with what the folder says of how it ended."""
        if not self._processes:
            return
        found, digest = ("finished", "") if (self._folder / "study.yaml").exists() else _ending(self._folder)
        ending = json.dumps({"status": status or found, "digest": digest}).encode()
        for one in self._processes:
            one.say(ending)
            one.close()
        waiting = self._processes
        while waiting := [one for one in waiting if not one.ended()]:
            time.sleep(_LOOK_EVERY_S)

    def leave(self) -> None:
        """Kill what still runs."""
        for one in self._processes:
            one.kill()


class _Process:
    """A tracker's process; once it is lost, which one warning says, everything is ignored."""

    def __init__(self, tracker: Tracker, folder: Path) -> None:
        self._name, self._folder, self._lost = tracker.name, folder, False
        self._closed = self._looked = self._used = 0.0
        settings = json.dumps(tracker.model_dump(mode="json"))
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", process.__name__, str(folder.absolute()), settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the run; and what the tracker starts is killed with it
        )
        os.set_blocking(self._input, False)

    @property
    def _input(self) -> int:
        assert self._child.stdin is not None
        return self._child.stdin.fileno()

    def say(self, text: bytes) -> None:
        """Write to the process without ever waiting for it."""
        if self._lost:
            return
        try:
            os.write(self._input, text)
        except BlockingIOError:
            self._lose("hangs")
        except BrokenPipeError:
            self._lose(self._error())

    def close(self) -> None:
        """Nothing more will be said."""
        self._closed = self._looked = time.monotonic()
        if not self._lost and self._child.stdin is not None:
            self._child.stdin.close()

    def ended(self) -> bool:
        """Whether it has ended, if only because it was lost; call it again and again after `close`."""
        if self._lost:
            return True
        status, now = self._child.poll(), time.monotonic()
        if status is None and now - self._looked < PATIENCE_S:
            return False
        if status is None:
            self._looked = now
            if now - self._closed < LONGEST_S and self._works():
                return False
            self._lose(f"is not done {now - self._closed:.0f} s after the end")
        elif status:
            self._lose(self._error())
        self.kill()
        return True

    def _works(self) -> bool:
        """Whether it has computed since the last call."""
        before, self._used = self._used, _cpu_seconds(self._child.pid)
        return self._used - before > _LEAST_SHARE * PATIENCE_S

    def kill(self) -> None:
        """End it with all that it started, unless it has ended."""
        if self._lost:
            return
        self._lost = True
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._close()

    def _error(self) -> str:
        """What it says before it ends, which it has or is about to."""
        assert self._child.stdout is not None
        said = self._child.stdout.read().decode(errors="replace")
        return said or f"its process was killed (status {self._child.wait()})"

    def _lose(self, why: str) -> None:
        self.kill()
        rest = "has everything, and a resumed run tells it the rest"
        log.warning("tracker %s: %s; %s %s", self._name, why, self._folder, rest)

    def _close(self) -> None:
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def tracked(trackers: Sequence[Tracker], folder: Path, beside: Observer | None = None) -> Iterator[Trackers]:
    """Trackers that end with the block, which may write a report for them; see `Trackers`.

    Raises:
        InputError: a tracker's library is not installed.
    """
    telling = Trackers(trackers, folder, beside)
    try:
        yield telling
    except BaseException:
        if telling.begun:
            telling.end("failed")
        raise
    else:
        telling.end()
    finally:
        telling.leave()


def tell_rest(trackers: Sequence[Tracker], run: Path) -> None:
    """Tell those that do not know yet that a run has finished, of which nothing is left to do.

    Raises:
        InputError: a tracker's library is not installed.
    """
    late = [one for one in trackers if Tracked(folder=run, tracker=one.name).notes.get("ended") != "finished"]
    with tracked(late, run):
        pass


def _cpu_seconds(process: int) -> float:
    """What a process and those that it started have computed [s]."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for one in (parent, *parent.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def _ending(run: Path) -> tuple[Status, str]:
    """Whether a run has all its rounds, and the digest of its last checkpoint's arrays, if there is one."""
    complete = complete_rounds(run)
    with suppress(InputError, RunError):
        digest = digest_of_arrays(read_state(run, complete[-1])) if complete else ""
        return "finished" if is_trained(Run(run)) else "stopped", digest
    return "stopped", ""


def _check_installed(tracker: Tracker) -> None:
    missing = [name for name in (package.partition(".")[0] for package in tracker.packages) if find_spec(name) is None]
    if missing:
        what = f"{tracker.name} needs {missing[0]}, which is not installed; pip install 'fedsim[track]'"
        raise InputError(f"trackers: {what}")
