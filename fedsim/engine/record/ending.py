"""How a run stands, judged from its folder alone."""

from pathlib import Path
from typing import Literal

import pandas as pd

from fedsim.core.errors import InputError
from fedsim.engine.record.claim import check_unclaimed
from fedsim.engine.record.ledger import read_table
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.workload.schema import Workload

State = Literal["running", "finished", "finished early", "failed", "stopped"]


def is_trained(run: Run) -> bool:
    """Whether the last round to be trained has a checkpoint."""
    complete = complete_rounds(run.path)
    if run.workload.training.rounds in complete:
        return True
    if not complete or run.workload.training.early_stopping is None:
        return False
    rounds = run.rounds
    return bool(stopped_early(run.workload, rounds[rounds["round"] <= complete[-1]]))


def stopped_early(workload: Workload, rounds: pd.DataFrame) -> str:
    """Why a run stopped before its last round, in words; empty if it did not.

    Args:
        workload: The run's.
        rounds: Its rounds.parquet so far.
    """
    rule = workload.training.early_stopping
    if rule is None or rounds.empty:
        return ""
    return rule.verdict(zip(rounds["round"], rounds[rule.metric], strict=True))


def state_of(run: Path, *, trained: bool, early: bool) -> State:
    """How a run stands.

    Args:
        run: Run directory.
        trained: Whether all that was to be trained is.
        early: Whether it stopped before its last round because validation no longer improved.

    Raises:
        DamagedError: failures.parquet is not what was written.
    """
    try:
        check_unclaimed(run)
    except InputError:
        return "running"
    if trained:
        return "finished early" if early else "finished"
    failures = run / "failures.parquet"
    aborted = failures.exists() and (read_table(failures, ["action"])["action"] == "aborted").any()
    return "failed" if aborted else "stopped"
