"""Searches draw trials one after another, prune what does badly, and do not notice that they were interrupted."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedsim.core.errors import DamagedError, InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.study.choosing import choose, tuning_rows
from fedsim.study.journal import FILE, journal
from fedsim.study.outcome import Outcome
from fedsim.study.point import run_point
from fedsim.study.runner import run_study
from fedsim.study.search import Searches, ended_trials, trials_of
from fedsim.study.study import Case, Point, StudyPlan
from fedsim.workload.reading import write_yaml
from tests.conftest import COMMAND

from .conftest import PlanOf, assert_same_results, study_content

ROUNDS = {"set": {"training.rounds": 9, "engine.backend": "serial"}, "seeds": [1]}
RATE = {"training.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
BETA = {"fedmri": {"algorithm.beta": {"low": 0.01, "high": 10, "log": True}}}
TPE = {
    "seed": 9, "sampler": "tpe", "trials": 14, "pruner": {"kind": "asha", "grace": 1, "factor": 3},
    "space": RATE, "methods": BETA,
}  # fmt: skip
PAIR = Case("all", "fedmri")


@pytest.fixture
def search(plan_of: PlanOf) -> Callable[..., StudyPlan]:
    """Makes the plan of a study that searches; `keys` are those of tune."""
    return lambda **keys: plan_of(**ROUNDS, methods={"fedmri": {}}, reference="fedmri", tune={**TPE, **keys})


def curve(point: Point) -> list[tuple[int, float]]:
    """Validation by round as if trained: best where the learning rate is near 3e-3 and beta near 0.3."""
    settings = point.settings
    best = 30 - math.log10(settings["training.lr"] / 3e-3) ** 2 - math.log10(settings["algorithm.beta"] / 0.3) ** 2
    return [(round_, best - 5 / round_) for round_ in range(1, point.workload.training.rounds + 1)]


def outcome_of(point: Point) -> Outcome:
    """How a point with that curve ends."""
    assert point.judge is not None
    rounds = curve(point)
    if point.settings["training.lr"] > 0.01:
        return Outcome(error="diverged: as it does here")
    for last in range(1, len(rounds)):
        if point.judge.prunes(rounds[:last]):
            return Outcome(pruned=True, rungs=point.judge.reached(rounds[:last]))
    return Outcome(psnr=rounds[-1][1], rungs=point.judge.reached(rounds))


def complete(plan: StudyPlan, folder: Path, most: int = 1000) -> int:
    """Run up to so many trials, as the runner does; returns how many ended."""
    folder.mkdir(exist_ok=True)
    searches, done = Searches(plan, plan.searched, journal(folder, writes=True)), 0
    points = searches.heads()
    while points and done < most:
        point = points.pop(0)
        following = searches.after(point, outcome_of(point))
        points += [following] if following else []
        done += 1
    return done


@pytest.mark.parametrize(
    "keys", [{}, {"sampler": "random"}, {"pruner": {"kind": "median", "grace": 2}}, {"pruner": None}]
)
def test_an_interrupted_search_draws_the_same_trials(search: PlanOf, tmp_path: Path, keys: dict[str, Any]) -> None:
    plan = search(**keys)
    assert complete(plan, tmp_path / "whole") == 14
    while complete(plan, tmp_path / "parts", most=1):
        assert sum(trial.state == "running" for trial in trials_of(plan, tmp_path / "parts")[PAIR]) <= 1
    whole, parts = (trials_of(plan, tmp_path / name)[PAIR] for name in ("whole", "parts"))
    assert str(whole) == str(parts), "NaN is no number"
    assert choose(plan, tmp_path / "whole", {}) == choose(plan, tmp_path / "parts", {}) != {}
    finished = [trial for trial in whole if trial.state == "finished"]
    assert choose(plan, tmp_path / "whole", {})[PAIR].number == max(finished, key=lambda trial: trial.psnr).number
    states = {trial.state for trial in whole}
    assert states == {"finished", "diverged", *(["pruned"] if keys.get("pruner", True) else [])}
    assert len({json.dumps(trial.settings) for trial in whole}) == 14


def test_tpe_ends_nearer_to_the_best_than_it_begins(search: PlanOf, tmp_path: Path) -> None:
    plan = search(trials=40, pruner=None)
    complete(plan, tmp_path)
    rates = [abs(math.log10(trial.settings["training.lr"] / 3e-3)) for trial in trials_of(plan, tmp_path)[PAIR]]
    assert sum(rates[30:]) < 0.75 * sum(rates[:10]), "the first ten are random"


def test_methods_begin_with_the_same_settings_and_have_as_many_trials(plan_of: PlanOf, tmp_path: Path) -> None:
    tune = {**TPE, "trials": 5, "methods": {}}
    plan = plan_of(**ROUNDS, methods={"fedavg": {}, "fedmri": {"algorithm.beta": 1}}, tune=tune)
    assert plan.describe() == "1 regime x 2 methods x 1 seed, after 10 tuning runs"
    first, second = Searches(plan, plan.searched, journal(tmp_path, writes=True)).heads()
    assert first.settings == second.settings
    assert (first.method, second.method, first.label) == ("fedavg", "fedmri", "all/fedavg/tune-0")
    assert (first.part, first.seed) == ("val", 9)


def test_a_trial_that_failed_is_tried_again_with_the_same_settings(search: PlanOf, tmp_path: Path) -> None:
    plan = search()
    seen = []
    for outcome in (Outcome(error="no space left on device"), Outcome(stopped=True), Outcome(psnr=20.0)):
        searches = Searches(plan, plan.searched, journal(tmp_path, writes=True))
        (point,) = searches.heads()
        following = searches.after(point, outcome)
        seen.append((point.label, point.settings, following and following.label, searches.left))
    assert [settings for _, settings, _, _ in seen] == [seen[0][1]] * 3
    ends = [
        ("all/fedmri/tune-0", None, 14),
        ("all/fedmri/tune-0", None, 14),
        ("all/fedmri/tune-0", "all/fedmri/tune-1", 13),
    ]
    assert [(label, following, left) for label, _, following, left in seen] == ends
    assert ended_trials(plan, tmp_path) == {"all/fedmri/tune-0"}
    assert choose(plan, tmp_path, {}) == {}, "not before all trials have ended"


# Pruning


@pytest.mark.slow
def test_a_pruned_run_stops_at_its_rung_and_can_go_on(search: PlanOf, tmp_path: Path) -> None:
    plan = search(pruner={"kind": "asha", "grace": 2, "factor": 2}, trials=2)
    searches = Searches(plan, plan.searched, journal(tmp_path, writes=True))
    (point,) = searches.heads()
    second = searches.after(point, Outcome(psnr=99.0, rungs={2: 99.0, 4: 99.0, 8: 99.0}))
    assert second is not None
    path = tmp_path / second.folder
    rounds = iter((False, True))
    assert run_point(second.workload, path, second.part, lambda: next(rounds), judge=second.judge).stopped
    outcome = run_point(second.workload, path, second.part, lambda: False, judge=second.judge)
    assert outcome.pruned
    assert (list(outcome.rungs), complete_rounds(path)[-1], len(Run(path).rounds)) == ([2], 2, 2)
    assert searches.after(second, outcome) is None
    assert ended_trials(plan, tmp_path) == {point.label, second.label}
    assert choose(plan, tmp_path, {})[PAIR].number == 0
    (_, row) = tuning_rows(plan, tmp_path, {}, choose(plan, tmp_path, {}))
    assert (row["state"], row["rounds"], row["chosen"]) == ("pruned", 2, False)
    assert 0 < row["core_hours"] < 1
    assert len(run(second.workload, path, resume=True).rounds) == 9
    (_, later) = tuning_rows(plan, tmp_path, {}, choose(plan, tmp_path, {}))
    assert str(later) == str(row), "as it was pruned"
    again = run_point(second.workload, path, second.part, lambda: False, judge=second.judge)
    assert (again.pruned, again.stopped) == (True, False), "without the journal, too"


# The journal


def test_a_line_that_was_cut_off_is_no_damage(search: PlanOf, tmp_path: Path) -> None:
    plan = search()
    complete(plan, tmp_path, most=6)
    path = tmp_path / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rstrip().rfind(b"\n") + 20])
    assert len(trials_of(plan, tmp_path)[PAIR]) == 6, "readable meanwhile"
    complete(plan, tmp_path)
    complete(plan, tmp_path / "other")
    assert str(trials_of(plan, tmp_path)) == str(trials_of(plan, tmp_path / "other"))


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b'{"op_code": 4}\n'])
def test_a_damaged_journal_gets_one_line(search: PlanOf, tmp_path: Path, line: bytes) -> None:
    plan = search()
    complete(plan, tmp_path, most=2)
    path = tmp_path / FILE
    path.write_bytes(line + path.read_bytes())
    with pytest.raises(DamagedError, match=r"search\.journal: is damaged; delete it"):
        trials_of(plan, tmp_path)


@pytest.mark.parametrize(
    "keys", [{"trials": 3}, {"space": {"training.lr": [1e-3, 1e-2]}}, {"space": {**RATE, "training.batch_size": [1]}},
             {"space": {"training.lr": {"low": 1e-9, "high": 1e-8}}}, {"methods": {}}]
)  # fmt: skip
def test_the_journal_of_another_study_gets_one_line(search: PlanOf, tmp_path: Path, keys: dict[str, Any]) -> None:
    complete(search(), tmp_path, most=4)
    other, message = search(**keys), r"^search\.journal: has trials of all/fedmri that this study has not drawn; delete"
    with pytest.raises(DamagedError, match=message):
        trials_of(other, tmp_path)
    with pytest.raises(DamagedError, match=message):
        Searches(other, other.searched, journal(tmp_path, writes=True))


def test_without_optuna_a_search_says_what_to_install(
    search: PlanOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"tune\.sampler: .*optuna.*pip install 'fedsim\[tune\]'"):
        run_study(search(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Killed


@pytest.mark.long
@pytest.mark.ray
def test_a_search_that_is_killed_has_the_same_trials_and_winner(home: Path, tmp_path: Path) -> None:
    """Killed again and again, in the middle of trials and of drawing them."""
    keys = {"engine.backend": "serial", "training.rounds": 9, "engine.checkpoint_every": 2, "engine.keep_last": 1}
    tune = {**TPE, "trials": 12}
    (home / "search.yaml").write_text(write_yaml(study_content(seeds=[1], set=keys, methods={"fedmri": {}}, tune=tune)))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = [*COMMAND, "study", home / "search.yaml", "--out"]
    subprocess.run([*command, whole], check=True, capture_output=True, timeout=250)
    for trials in (2, 5, 9):
        process = subprocess.Popen([*command, parts], start_new_session=True, stdout=subprocess.DEVNULL)
        begun = parts / "runs" / "all" / "fedmri" / f"tune-{trials}" / "rounds.parquet"
        deadline = time.monotonic() + 200
        while not begun.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert begun.exists()
        assert not (parts / "results.parquet").exists()
    subprocess.run([*command, parts], check=True, capture_output=True, timeout=250)
    one, two = (pd.read_parquet(folder / "tuning.parquet").drop(columns="core_hours") for folder in (whole, parts))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert {"finished", "pruned"} <= set(one["state"])
    assert_same_results(whole, parts)
