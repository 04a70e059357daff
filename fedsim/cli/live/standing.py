"""How a run stands that another process may be writing, from its folder alone."""

import time
from pathlib import Path

from fedsim.cli.watch_run import WatchedRun
from fedsim.core.files import LEASE_S
from fedsim.engine.record.claim import LOCK
from fedsim.engine.record.ending import state_of

_SILENT_S = 1.5 * LEASE_S
_OLD_S = 10 * LEASE_S  # more than clocks of two machines differ


class Standing:
    """Follows a run's claim, which its holder renews three times a minute; that of a copied folder stays as it is."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._stamp, self._since = 0.0, 0.0

    def state(self, watched: WatchedRun) -> str:
        """The state in a word or two; `gone` if there is no run any longer.

        Raises:
            DamagedError: failures.parquet is not what was written.
        """
        if not (self._run / "workload.yaml").exists():
            return "gone"
        done = watched.done
        state = state_of(self._run, trained=done, early=bool(watched.early))
        if state != "running":
            return state
        if not self._renewed():
            return "silent"
        return "testing" if done else "running"

    def _renewed(self) -> bool:
        """Whether the claim was renewed lately, by this machine's clock: another's may be wrong."""
        try:
            stamp = (self._run / LOCK).stat().st_mtime
        except FileNotFoundError:
            return False
        if stamp != self._stamp:
            self._stamp, self._since = stamp, time.monotonic()
        return time.monotonic() - self._since < _SILENT_S and time.time() - stamp < _OLD_S
