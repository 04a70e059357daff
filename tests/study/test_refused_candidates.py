"""Candidates that can never run count and are not chosen; what may run another time is tried again."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedsim.core.errors import InputError
from fedsim.engine.place.machine import Machine
from fedsim.engine.plan import fits
from fedsim.report.tuning_table import tuning_columns, tuning_costs
from fedsim.study.choosing import choose, tried
from fedsim.study.journal import FILE, journal
from fedsim.study.outcome import REFUSED, Outcome
from fedsim.study.point import run_point
from fedsim.study.runner import StudyResult, run_study
from fedsim.study.search import Searches, ended_trials, trials_of
from fedsim.study.study import Case, Point, StudyPlan
from tests.engine.plans import GB, disk, machine, with_nodes

from .conftest import SEARCH, PlanOf

TWO_NUMBERS = {"training.cohort": [None, 1], "training.participation": [1.0, 0.5], "training.lr": [1e-3, 1e-2]}
"""Valid each beside the first of the others, but not a cohort beside participation 0.5."""
CASE = Case("all", "fedavg")
NARROW = """
import torch
from fedsim.models.base import Model, Network
from fedsim.mri.fft import ifft2c


class Net(Network):
    def __init__(self, width):
        super().__init__()
        if width > 2:
            raise ValueError("is too wide")
        self.layer = torch.nn.Conv2d(width, 1, 1)

    def forward(self, kspace, mask):
        image = ifft2c(kspace).abs()[:, None]
        return (image + self.layer(image.expand(-1, self.layer.in_channels, -1, -1)))[:, 0]


class Narrow(Model):
    channels: int
    pools: int

    def network(self):
        return Net(self.channels)
"""


@pytest.fixture
def search(plan_of: PlanOf) -> PlanOf:
    """Makes the plan of a search among combinations that are not all valid."""
    tune = {**SEARCH, "trials": 16, "space": TWO_NUMBERS}
    return lambda **keys: plan_of(seeds=[1], methods={"fedavg": {}}, reference="fedavg", tune={**tune, **keys})


def outcome_of(point: Point) -> Outcome:
    """How a trial ends: as the runner says if it is invalid, and better with a cohort of one."""
    if point.refused:
        return Outcome(error=REFUSED + point.refused)
    return Outcome(psnr=20 + point.settings["training.lr"] + (point.settings["training.cohort"] or 0))


def complete(plan: StudyPlan, folder: Path, most: int = 1000) -> int:
    """Run up to so many trials of one search; returns how many ended."""
    folder.mkdir(exist_ok=True)
    searches, done = Searches(plan, plan.searched, journal(folder, writes=True)), 0
    (point,) = searches.heads() or (None,)
    while point and done < most:
        point, done = searches.after(point, outcome_of(point)), done + 1
    return done


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_goes_past_invalid_combinations_however_often_it_stops(
    search: PlanOf, tmp_path: Path, sampler: str
) -> None:
    plan = search(sampler=sampler)
    assert complete(plan, tmp_path / "whole") == 16
    while complete(plan, tmp_path / "parts", most=1):
        pass
    whole, parts = (trials_of(plan, tmp_path / name)[CASE] for name in ("whole", "parts"))
    assert str(whole) == str(parts), "NaN is no number"
    invalid = [one.number for one in whole if None not in one.settings.values() and 0.5 in one.settings.values()]
    assert invalid == [one.number for one in whole if one.state == "refused"] != []
    assert all(math.isnan(whole[number].psnr) for number in invalid)
    assert ended_trials(plan, tmp_path / "whole") == {f"all/fedavg/tune-{number}" for number in range(16)}
    chosen = choose(plan, tmp_path / "whole", {})
    assert chosen == choose(plan, tmp_path / "parts", {})
    assert chosen[CASE].settings["training.cohort"] == 1
    assert chosen[CASE].number not in invalid
    why = {one.point.refused for one in tried(plan, tmp_path / "whole", {})[CASE] if one.state == "refused"}
    assert why == {
        "training: cohort: 1 clients a round, and participation=0.5 says how many, too; leave one of them out"
    }


def test_a_base_workload_that_is_gone_refuses_no_trial(search: PlanOf, home: Path, tmp_path: Path) -> None:
    plan = search()
    base, away = home / "small.yaml", tmp_path / "away.yaml"
    base.rename(away)
    try:
        with pytest.raises(InputError, match=r"method fedavg: cannot be read \(No such file or directory\)$"):
            complete(plan, tmp_path / "out")
    finally:
        away.rename(base)
    assert complete(plan, tmp_path / "out") == complete(plan, tmp_path / "whole") == 16
    assert str(trials_of(plan, tmp_path / "out")) == str(trials_of(plan, tmp_path / "whole"))


@pytest.mark.parametrize(
    ("there", "error", "refused"),
    [
        (with_nodes(total_memory=0.5 * GB), "refused: training.batch_size: an actor of", True),
        (machine(out=disk("/runs/x", 10.0, 3)), "--out: ", False),
    ],
    ids=["memory", "disk"],
)
def test_what_is_too_large_is_refused_and_a_full_disk_may_be_emptied(
    search: PlanOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: Machine, error: str, refused: bool
) -> None:
    plan = search()
    searches = Searches(plan, plan.searched, journal(tmp_path, writes=True))
    point = searches.heads()[0]
    while point.refused:
        point = searches.after(point, outcome_of(point)) or point
    monkeypatch.setattr(fits, "machine_of", lambda *_: there)
    outcome = run_point(point.workload, tmp_path / point.folder, point.part, lambda: False, judge=point.judge)
    assert outcome.error.startswith(error)
    assert outcome.refused == refused
    following = searches.after(point, outcome)
    assert (following is not None) == refused
    again = Searches(plan, plan.searched, journal(tmp_path, writes=True)).heads()[0]
    assert again.candidate == (following or point).candidate


# Whole studies


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "tuning.parquet").drop(columns="core_hours")


def study(plan_of: PlanOf, home: Path, widths: list[int], **tune: Any) -> StudyPlan:
    """A study of a network that is built only up to a width of 2."""
    (home / "narrow.py").write_text(NARROW)
    keys = {"training.rounds": 2, "engine.backend": "serial", "model.name": "narrow:Narrow"}
    space = {"grid": {"model.channels": widths}} if "sampler" not in tune else {"space": {"model.channels": widths}}
    return plan_of(set=keys, seeds=[1], methods={"fedavg": {}}, reference="fedavg", tune={"seed": 9, **space, **tune})


@pytest.mark.parametrize("keys", [{}, {"sampler": "random", "trials": 5}], ids=["grid", "search"])
def test_a_study_chooses_among_candidates_that_are_not_refused(
    plan_of: PlanOf,
    home: Path,
    ray_session: None,
    tmp_path: Path,
    keys: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan, folder = study(plan_of, home, [1, 2, 3, 4], **keys), tmp_path / "out"
    assert run_study(plan, folder) == StudyResult(folder, (), stopped=False)
    (warning,) = {
        record.getMessage().partition(": ")[2] for record in caplog.records if "refused" in record.getMessage()
    }
    assert warning.startswith("refused: model: ")
    assert "is too wide" in warning
    found = rows(folder)
    widths = [json.loads(text)["model.channels"] for text in found["settings"]]
    assert [state == "refused" for state in found["state"]] == [width > 2 for width in widths]
    assert {"finished", "refused"} == set(found["state"])
    assert [state == "refused" for state in found["state"]] == list(found["error"] == warning)
    assert found.loc[found["chosen"], "psnr"].tolist() == [found["psnr"].max()]
    shown = {
        column.head: column.cells[0].text
        for column in tuning_columns(tuning_costs(pd.read_parquet(folder / "tuning.parquet")))
    }
    assert shown["refused"] == str((found["state"] == "refused").sum())
    assert shown["first refusal"] == warning.removeprefix(REFUSED)
    for file in ("none", "failed.parquet", FILE):
        (folder / file).unlink(missing_ok=True)
        assert not run_study(plan, folder).failed
        pd.testing.assert_frame_equal(rows(folder), found, check_exact=True)


@pytest.mark.parametrize(
    ("keys", "files"),
    [({}, "failed.parquet"), ({"sampler": "random", "trials": 2}, f"failed.parquet and {FILE}")],
    ids=["grid", "search"],
)
def test_a_method_whose_candidates_are_all_refused_gets_one_line(
    plan_of: PlanOf, home: Path, ray_session: None, tmp_path: Path, keys: dict[str, Any], files: str
) -> None:
    plan = study(plan_of, home, [3, 4], **keys)
    (line,) = run_study(plan, tmp_path / "out").failed
    start = "all/fedavg: was not run, because all 2 candidates of its tuning were refused, the first: model: "
    assert line.startswith(start)
    assert line.endswith(f"; delete {files} to retry them")
    assert run_study(plan, tmp_path / "out").failed == (line,)
