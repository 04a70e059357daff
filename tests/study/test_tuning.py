"""Hyperparameters are chosen by validation, from a grid."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from fedsim.engine.record.run_directory import Run
from fedsim.report.conclude import conclude
from fedsim.study.runner import StudyResult
from fedsim.study.study import StudyPlan
from fedsim.study.tune import Tune


@pytest.mark.slow
def test_tuning_chooses_by_validation_and_never_sees_the_test_split(
    plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], tmp_path: Path
) -> None:
    tune = {"seed": 9, "grid": {"training.lr": [1e-9, 1e-2, 1e30]}, "methods": {"fedmri": {"algorithm.beta": [1, 2]}}}
    methods = {"fedavg": {}, "fedmri": {}}
    folder = tmp_path / "out"
    assert not run(plan_of(tune=tune, methods=methods, seeds=[1]), folder).failed, "a diverged candidate is an answer"
    frame = pd.read_parquet(folder / "tuning.parquet")
    assert list(frame.groupby("method", sort=False).size()) == [3, 6]
    assert list(frame.groupby("method")["chosen"].sum()) == [1, 1]
    for _, group in frame.groupby("method"):
        assert group["psnr"].idxmax() == group["chosen"].idxmax()
        wild = group[group["settings"].str.contains("1e\\+30")]
        assert wild["psnr"].isna().all()
        assert wild["error"].str.contains("lower its").all()
    tuned = [Run(path.parent) for path in folder.glob("runs/all/*/tune-*/evaluation.parquet")]
    assert len(tuned) == 6
    assert {part for run in tuned for part in run.evaluation["split"]} == {"val"}
    assert {run.workload.seed for run in tuned} == {9}
    assert not list(folder.glob("runs/all/*/tune-*/images"))
    chosen = dict(frame[frame["chosen"]][["method", "settings"]].itertuples(index=False, name=None))
    ours = pd.read_parquet(folder / "volumes.parquet").groupby("method")["settings"].first()
    assert dict(ours) == chosen
    final = Run(folder / "runs" / "all" / "fedmri" / "seed-1").workload
    assert final.training.lr == json.loads(chosen["fedmri"])["training.lr"]
    text = StringIO()
    conclude(folder, Console(file=text, width=120))
    assert "NOT the same for all methods: candidates, from 3 (fedavg) to 6 (fedmri)" in text.getvalue()


def test_tuning_in_one_regime_serves_all(plan_of: Callable[..., StudyPlan]) -> None:
    regimes = {"few": {"federation.split.train_subjects": 1}, "all": {}}
    keys: dict[str, Any] = {"regimes": regimes, "methods": {"fedavg": {}, "fedmri": {}}}
    tune = {"seed": 9, "grid": {"training.lr": [1e-3, 1e-2]}, "methods": {"fedmri": {"algorithm.beta": [1, 2]}}}
    everywhere, once = plan_of(**keys, tune=tune), plan_of(**keys, tune={**tune, "regime": "all"})
    assert len(everywhere.tuning()) == 2 * len(once.tuning()) == 2 * (2 + 4)
    assert {point.regime for point in once.tuning()} == {"all"}
    assert {once.tuned_in(case).regime for case in once.cases} == {"all"}


def test_candidates_are_the_product_of_the_axes() -> None:
    tune = Tune(seed=1, grid={"training.lr": (1, 2)}, methods={"a": {"algorithm.mu": (3, 4)}})
    assert tune.candidates("b") == [{"training.lr": 1}, {"training.lr": 2}]
    assert [tuple(one.values()) for one in tune.candidates("a")] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert Tune(seed=1).candidates("a") == []
