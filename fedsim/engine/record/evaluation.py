"""evaluation.parquet: the scores of volumes, by round and part."""

from pathlib import Path

import pandas as pd

from fedsim.data.split import Part
from fedsim.engine.record.ledger import write_table
from fedsim.engine.record.run_directory import Run


def keep_evaluation(run: Path, frame: pd.DataFrame, round_: int, part: Part) -> None:
    """Write the rows of a round and part into evaluation.parquet, in place of earlier ones."""
    path = run / "evaluation.parquet"
    if path.exists():
        old = Run(run).evaluation
        frame = pd.concat([old[(old["round"] != round_) | (old["split"] != part)], frame], ignore_index=True)
    write_table(path, frame)
