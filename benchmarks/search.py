"""What a search found beside a grid, from the folders of finished studies of one method.

    python benchmarks/search.py GRID SEARCH [SEARCH ...]

A JSON line per study: candidates, rounds, their share of the grid's, core-hours, the best validation PSNR [dB] and its
settings. Then one per round of the grid: Spearman's correlation, over candidates, of the best validation PSNR so far
with that of all rounds, which says how early a pruner can judge.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr


def found(study: Path, rounds: int) -> dict[str, Any]:
    """What a study tried and chose; `rounds` are those of the grid."""
    tuning = pd.read_parquet(study / "tuning.parquet")
    best = tuning[tuning["chosen"]].iloc[0]
    settings = {key.rpartition(".")[2]: float(f"{value:.3g}") for key, value in json.loads(best["settings"]).items()}
    return {
        "study": study.name,
        "candidates": len(tuning),
        "stopped early": int((tuning["state"] == "pruned").sum()),
        "rounds": int(tuning["rounds"].sum()),
        "of the grid's": round(float(tuning["rounds"].sum() / rounds), 3),
        "core-hours": round(float(tuning["core_hours"].sum()), 3),
        "validation PSNR": round(float(best["psnr"]), 3),
        **settings,
    }


def order(grid: Path) -> list[dict[str, Any]]:
    """How well the order of the candidates after each round tells their order in the end."""
    runs = [pd.read_parquet(path) for path in sorted(grid.glob("runs/*/*/tune-*/rounds.parquet"))]
    best = pd.DataFrame([run["psnr"].cummax() for run in runs]).to_numpy()
    return [
        {"after round": at + 1, "rank correlation": round(float(spearmanr(best[:, at], best[:, -1]).statistic), 2)}
        for at in range(best.shape[1])
    ]


def main() -> None:
    """Print the lines."""
    studies = [Path(name) for name in sys.argv[1:]]
    if len(studies) < 2:
        sys.exit(__doc__)
    rounds = int(pd.read_parquet(studies[0] / "tuning.parquet")["rounds"].sum())
    for line in [*(found(study, rounds) for study in studies), *order(studies[0])]:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
