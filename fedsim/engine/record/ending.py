"""Whether a run is complete, judged from its folder alone."""

import pandas as pd

from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.workload.schema import Workload


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
