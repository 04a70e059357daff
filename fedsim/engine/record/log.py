"""RUN/log.txt: what a run logs, each line with its time; a resumed run appends to it."""

import logging
import math
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from fedsim.core.errors import ClientError, InputError, RunError
from fedsim.core.text import precise_duration
from fedsim.engine.host.messages import Row

_FEDSIM = logging.getLogger("fedsim")


class RunLog(logging.Handler):
    """Keeps what fedsim logs until there is a run directory, then writes it there; a failing log stops nothing."""

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
        """Write to a run's log.txt from now on, beginning with what was kept."""
        self._path = run / "log.txt"
        waiting, self._waiting = self._waiting, []
        for text in waiting:
            self._write(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a log record; a caller without handlers still sees warnings on stderr, as without this handler."""
        if self._alone and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)
        self.say(f"{record.levelname.lower()}: {record.getMessage()}")

    def say(self, text: str) -> None:
        """Write a line."""
        self._write(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {text}")

    def fail(self, error: BaseException) -> None:
        """Write why a run ended, with the traceback unless the message explains the error."""
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


def round_text(row: Row, rounds: int) -> str:
    """A round as one line, with the number of rounds."""
    return f"round {row['round']}/{rounds}  {round_figures(row)}  {row['seconds']:.1f} s"


def round_figures(row: Row) -> str:
    """A round's loss, its PSNR if it was validated, and when it ended in simulated time, if there is any."""
    psnr = "" if math.isnan(row["psnr"]) else f"  PSNR {row['psnr']:.2f} dB"
    virtual = f"  simulated {precise_duration(row['virtual_s'])}" if "virtual_s" in row else ""
    return f"loss {row['loss']:.4f}{psnr}{virtual}"
