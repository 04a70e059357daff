"""A tracker's process: `python -m fedsim.engine.tracking.process FOLDER SETTINGS`.

Every byte on standard input says that the ledger has grown, a last line of JSON how the run ended. An error is one
line on standard output. Once the service is open, the process has the lowest priority; it does not outlive its driver
long.
"""

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path

from pydantic import TypeAdapter

from fedsim.core.extension import error_text
from fedsim.core.own import is_own
from fedsim.engine.tracking.news import News
from fedsim.trackers.base import Tracker
from fedsim.trackers.catalogue import AnyTracker
from fedsim.trackers.tracked import Tracked

GREW = b"."
"""What the driver writes when the ledger has grown."""
NICE = 10
"""How far it yields: on a core that also trains it gets a tenth."""
LINGER_S = 60.0
"""Seconds that this process may live after its driver has closed its input."""


class Driver(threading.Thread):
    """What the run's driver has said so far."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.begun = False
        """Whether there is a ledger."""
        self.ending = b""
        """How the run ended."""
        self.silent = False
        """Whether nothing more will be said."""
        self._news = threading.Event()

    def run(self) -> None:
        """Listen, and leave some time after the driver even if the tracker hangs."""
        while said := os.read(0, 1 << 16):
            self.ending += said.lstrip(GREW)
            self.begun = True
            self._news.set()
        self.silent = True
        self._news.set()
        time.sleep(LINGER_S)
        os._exit(1)

    def wait(self) -> None:
        """Until something was said since the last call."""
        self._news.wait()
        self._news.clear()


def main(folder: Path, settings: object) -> str:
    """Tell a tracker about a run until it ends; returns an error in one line, or nothing."""
    driver = Driver()
    tracker: Tracker | None = None
    driver.start()
    try:
        _import(settings)
        driver.wait()
        if driver.begun:
            tracker = TypeAdapter[Tracker](AnyTracker).validate_python(settings, context={"folders": (folder,)})
            _follow(tracker, Tracked(folder=folder, tracker=tracker.name), driver)
    except BaseException as error:  # whatever a tracker raises, the run goes on
        return error_text(tracker, error) if tracker else f"{type(error).__name__}: {error}"
    return ""


def _import(settings: object) -> None:
    """Load a known tracker's library before there is anything to tell."""
    if not is_own(settings["name"] if isinstance(settings, dict) else settings):
        tracker = TypeAdapter[Tracker](AnyTracker).validate_python(settings)
        for package in tracker.packages:
            importlib.import_module(package)


def _follow(tracker: Tracker, run: Tracked, driver: Driver) -> None:
    tracker.begin(run)
    run.note(ended="")
    os.nice(NICE)
    news = None if run.is_study else News(run.folder, tracker.reached(run))
    while True:
        silent = driver.silent  # then the ledger is complete
        for round_, scalars in news.read() if news else ():
            tracker.scalars(round_, scalars)
            run.note(round=round_)
        if silent:
            break
        driver.wait()
    if driver.ending:
        how = json.loads(driver.ending)
        tracker.end(how["status"], how["digest"], sorted(run.folder.glob("figures/*.png")))
        run.note(ended=how["status"])


if __name__ == "__main__":
    report = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    failure = main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    report.write(failure)
    report.close()
    os._exit(1 if failure else 0)
