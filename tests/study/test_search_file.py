"""What a search may say: its spaces, its rungs, and what is refused in one line."""

import math
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from fedsim.report.tuning_table import tuning_columns, tuning_costs
from fedsim.study.journal import journal
from fedsim.study.outcome import Outcome
from fedsim.study.pruning import Judge
from fedsim.study.search import Searches, trials_of
from fedsim.study.space import Range
from fedsim.study.study import Case, StudyPlan
from fedsim.study.tune import Asha, Median, Tune

from .conftest import SEARCH, PlanOf

# Spaces


def drawn(plan: StudyPlan, folder: Path) -> list[dict[str, Any]]:
    """The settings of every trial."""
    folder.mkdir()
    searches = Searches(plan, plan.searched, journal(folder, writes=True))
    points = searches.heads()
    while point := points.pop():
        points.append(searches.after(point, Outcome(psnr=20.0)))
    return [trial.settings for trial in trials_of(plan, folder)[Case("all", "fedmri")]]


def test_keys_are_drawn_where_they_apply_and_in_an_order_of_their_own(plan_of: PlanOf, tmp_path: Path) -> None:
    space = {
        "training.clip_norm": {"low": 0.5, "high": 1.5, "step": 0.5, "when": {"training.optimizer": ["sgd", "adam"]}},
        "training.optimizer": ["adam", "sgd", "rmsprop"],
        "training.batch_size": {"low": 1, "high": 4, "step": 1, "log": True},
        "training.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    }
    plans = [
        plan_of(seeds=[1], methods={"fedmri": {}}, tune={**SEARCH, "space": dict(items)})
        for items in (space.items(), reversed(space.items()))
    ]
    trials, turned = (drawn(plan, tmp_path / str(index)) for index, plan in enumerate(plans))
    assert trials == turned
    assert list(trials[0])[:3] == ["training.batch_size", "training.lr", "training.optimizer"]
    assert all(("training.clip_norm" in one) == (one["training.optimizer"] != "rmsprop") for one in trials)
    assert {one["training.optimizer"] for one in trials} == {"adam", "sgd", "rmsprop"}
    assert {one["training.batch_size"] for one in trials} == {1, 2, 3, 4}
    assert {one["training.clip_norm"] for one in trials if "training.clip_norm" in one} == {0.5, 1.0, 1.5}
    assert len([one for one in trials if one["training.lr"] < 1e-3]) in range(8, 23), "even in the logarithm"


def test_values_may_be_anything_that_a_key_takes(plan_of: PlanOf, tmp_path: Path) -> None:
    values = [None, {"patience": 3}, {"patience": 4}]
    tune = {**SEARCH, "space": {"training.clip_norm": [None, 4], "algorithm.beta": [0, 1.5]}}
    plan = plan_of(seeds=[1], methods={"fedmri": {}}, tune=tune)
    assert {one["training.clip_norm"] for one in drawn(plan, tmp_path / "out")} == {None, 4}
    assert Range.model_validate({"values": values}).model_dump() == values, "written as the list it was"


def test_a_grid_of_lists_is_what_it_was() -> None:
    tune = Tune.model_validate({"seed": 9, "grid": {"training.lr": [1, 2]}, "methods": {"a": {"algorithm.mu": [3, 4]}}})
    assert not tune.searches
    written = tune.model_dump(exclude_defaults=True)
    assert written == {"seed": 9, "grid": {"training.lr": (1, 2)}, "methods": {"a": {"algorithm.mu": [3, 4]}}}
    assert Tune.model_validate(written) == tune


# Rungs


def judged(pruner: Asha | Median, *others: dict[int, float]) -> Judge:
    """A judge who has seen other trials of 27 rounds, with these values at their rungs."""
    before: list[optuna.trial.FrozenTrial] = []
    for values in others:
        _, trial = Judge(pruner=pruner, rounds=27, before=tuple(before)).replayed(values)
        trial.state, trial.value, trial.datetime_complete = optuna.trial.TrialState.COMPLETE, 1.0, trial.datetime_start
        before.append(trial)
    return Judge(pruner=pruner, rounds=27, before=tuple(before))


ASHA = Asha(kind="asha", grace=1, factor=3)
MEDIAN = Median(kind="median", grace=4)


def test_rungs_are_rounds() -> None:
    assert ASHA.rungs(27) == [1, 3, 9]
    assert Asha(kind="asha", grace=4).rungs(40) == [4, 16]
    assert MEDIAN.rungs(13) == [4, 8, 12]
    reached = judged(ASHA).reached([(1, math.nan), (2, 5.0), (3, 4.0), (4, 6.0)])
    assert reached == {3: 5.0}, "the best so far"


@pytest.mark.parametrize(("value", "pruned"), [(3.0, False), (2.5, False), (1.5, True)])
def test_asha_keeps_the_best_third_of_a_rung(value: float, pruned: bool) -> None:
    others = [{1: value} for value in (3.0, 1.0, 2.0, 1.0, 1.0)]
    assert judged(ASHA, *others).prunes([(1, value)]) == pruned
    assert not judged(ASHA, *others).prunes([(1, 1.5), (2, 1.5)]), "no rung"
    assert judged(ASHA, *others).replayed({1: value, 3: 9.0})[0] == pruned, "also if it has been continued"
    assert not judged(ASHA).prunes([(1, -5.0)]), "the first"


@pytest.mark.parametrize(("value", "pruned"), [(3.1, False), (2.9, True)])
def test_median_compares_with_the_others_at_the_same_round(value: float, pruned: bool) -> None:
    others = [{4: value, 8: 9.0} for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert judged(MEDIAN, *others).prunes([(4, value)]) == pruned
    assert not judged(MEDIAN, *others[:4]).prunes([(4, value)]), "too few"


# The table


def test_the_table_says_what_each_method_was_given(plan_of: PlanOf) -> None:
    rows = [
        {"method": "fedavg", "state": "finished", "psnr": 20.0, "rounds": 9, "core_hours": 0.5, "chosen": False},
        {"method": "fedavg", "state": "finished", "psnr": 21.0, "rounds": 9, "core_hours": 0.5, "chosen": True},
        {"method": "fedmri", "state": "finished", "psnr": 22.0, "rounds": 9, "core_hours": 0.6, "chosen": True},
        {"method": "fedmri", "state": "pruned", "psnr": math.nan, "rounds": 3, "core_hours": 0.2, "chosen": False},
    ]
    frame = pd.DataFrame(rows).assign(regime="all", settings='{"training.lr": 0.00123456}', error="")
    shown = {column.head: [cell.text for cell in column.cells] for column in tuning_columns(tuning_costs(frame))}
    assert shown == {
        "method": ["fedavg", "fedmri"], "candidates": ["2", "2"], "pruned": ["0", "1"], "rounds": ["18", "12"],
        "core-hours": ["1", "0.8"], "validation PSNR [dB]": ["21.00", "22.00"],
        "chosen": ["training.lr 0.00123"] * 2,
    }  # fmt: skip
    older = frame.drop(columns=["state", "rounds", "core_hours"])
    heads = [column.head for column in tuning_columns(tuning_costs(older))]
    assert heads == ["method", "candidates", "validation PSNR [dB]", "chosen"]
