"""failures.parquet: what went wrong in a run and what was done about it, written before it takes effect.

It is not cut back when rounds are done again: a client that was dropped from a round is dropped again, and a fault of
the machine that has struck does not strike twice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from fedsim.core.errors import DamagedError
from fedsim.engine.record.ledger import read_table, write_table
from fedsim.workload.faults import Fault, by_client, due
from fedsim.workload.schema import Workload

Kind = Literal["raised", "diverged", "lost", "late", "injected"]
Action = Literal["dropped", "replayed", "aborted", "struck"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure of a client or a process, or an injected fault."""

    round: int
    """Counted from 1."""
    phase: str
    """The algorithm's name for it."""
    client: str
    """Its name; of a lost process, the client it last reported to work for (once a second); empty if none."""
    kind: Kind
    action: Action
    message: str
    trace: str = ""
    """The traceback in the client's process."""
    fault: int = -1
    """Index of an injected fault in the workload's `faults`; -1 for others."""


class Failures:
    """All failures recorded so far in a run directory."""

    def __init__(self, run: Path) -> None:
        """Read what the run has recorded.

        Raises:
            DamagedError: failures.parquet cannot be read.
        """
        self.run = run
        self._path = run / "failures.parquet"
        frame = read_table(self._path) if self._path.exists() else pd.DataFrame()
        try:
            self.noted = [Failure(**row) for row in frame.to_dict("records")]  # type: ignore[arg-type]
        except TypeError as error:
            raise DamagedError(f"{self._path}: has other columns than fedsim writes") from error

    def note(self, failures: Sequence[Failure]) -> None:
        """Record failures; they are on disk when this returns."""
        if failures:
            self.noted += failures
            write_table(self._path, pd.DataFrame([asdict(failure) for failure in self.noted]))

    def dropped(self, round_: int) -> dict[str, str]:
        """The clients dropped from a round, each with the first phase that it missed."""
        return {f.client: f.phase for f in self.noted if f.round == round_ and f.action == "dropped"}

    def strike(self, workload: Workload, clients: Sequence[str], round_: int, phase: str) -> dict[str, list[Fault]]:
        """The workload's faults that strike some clients now; faults of the machine strike once and are recorded."""
        at = round_, phase
        spent = {(f.fault, f.client) for f in self.noted if f.round == round_ and f.action == "struck"}
        now = [o for o in due(workload.faults, workload.seed, clients, *at) if (o.index, o.client) not in spent]
        once = [one for one in now if one.fault.once]
        self.note([
            Failure(
                round=round_, phase=phase, client=one.client, kind="injected", action="struck",
                message=one.fault.kind, fault=one.index,
            )
            for one in once
        ])  # fmt: skip
        return by_client(now)
