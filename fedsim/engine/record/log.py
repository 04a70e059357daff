"""RUN/log.txt: what a run says, with the time of each line; it is appended to when the run is resumed."""

import logging
import math
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from fedsim.core.errors import ClientError, InputError, RunError
from fedsim.engine.host.messages import Row

_FEDSIM = logging.getLogger("fedsim")


class RunLog(logging.Handler):
    """Keeps what fedsim logs until there is a run directory, then writes it there. A log that fails ends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._path: Path | None = None
        self._waiting: list[str] = []
        self._alone = False

    def __enter__(self) -> Self:
        self._alone = not _FEDSIM.hasHandlers()
        _FEDSIM.addHandler(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _FEDSIM.removeHandler(self)

    def open(self, run: Path) -> None:
        """Write into a run's log.txt from now on, beginning with what has waited."""
        self._path = run / "log.txt"
        waiting, self._waiting = self._waiting, []
        for text in waiting:
            self._write(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a warning or whatever else was logged; a caller without handlers sees warnings as without this one."""
        if self._alone and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)
        self.say(f"{record.levelname.lower()}: {record.getMessage()}")

    def say(self, text: str) -> None:
        """Write a line."""
        self._write(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {text}")

    def fail(self, error: BaseException) -> None:
        """Write why a run ended, with the traceback of what is not plain from its message."""
        trace = error.trace if isinstance(error, ClientError) else ""
        if not isinstance(error, InputError | RunError | KeyboardInterrupt):
            trace = "".join(traceback.format_exception(error))
        self.say("\n".join(filter(None, (f"ended by {type(error).__name__}: {error}", trace.rstrip()))))

    def _write(self, text: str) -> None:
        if self._path is None:
            self._waiting.append(text)
            return
        with suppress(OSError), self._path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{text}\n")


def round_said(row: Row, rounds: int) -> str:
    """A round of so many as one line."""
    return f"round {row['round']}/{rounds}  {figures_said(row)}  {row['seconds']:.1f} s"


def figures_said(row: Row) -> str:
    """A round's loss, and its validation where there was one."""
    psnr = "" if math.isnan(row["psnr"]) else f"  PSNR {row['psnr']:.2f} dB"
    return f"loss {row['loss']:.4f}{psnr}"
