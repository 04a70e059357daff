"""Pieces of a study: what a pattern takes, and that pieces together are the study."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.study.ended import read_failures, write_failures
from fedsim.study.piece import piece_of
from fedsim.study.runner import StudyResult, check_data
from fedsim.study.study import StudyPlan

from .conftest import assert_same_results, results

PlanOf = Callable[..., StudyPlan]
REGIMES = {"few": {"federation.split.train_subjects": 1}, "few-slow": {"training.lr": 1e-4}, "all": {}}


@pytest.mark.parametrize(
    ("pattern", "cases"),
    [
        ("*", {(r, m) for r in REGIMES for m in ("single", "fedavg", "fedmri")}),
        ("few", {("few", m) for m in ("single", "fedavg", "fedmri")}),
        ("few*/fed*", {(r, m) for r in ("few", "few-slow") for m in ("fedavg", "fedmri")}),
        ("*/single", {(r, "single") for r in REGIMES}),
    ],
)
def test_a_pattern_takes_regimes_or_methods_of_them(plan_of: PlanOf, pattern: str, cases: set[tuple[str, str]]) -> None:
    plan = plan_of(regimes=REGIMES)
    piece = piece_of(plan, pattern)
    assert {(point.regime, point.method) for point in plan.examples() if piece.has(point)} == cases
    assert all(piece.has_label(point.label) == piece.has(point) for point in plan.examples())


def test_a_piece_has_the_tuning_that_it_needs(plan_of: PlanOf) -> None:
    tune = {"seed": 9, "grid": {"training.lr": [1e-3, 1e-2]}}
    for regime, tuned in (("all", {"all"}), (None, {"few"})):
        plan = plan_of(regimes=REGIMES, tune={**tune, "regime": regime})
        piece = piece_of(plan, "few/fedavg")
        assert {(p.regime, p.method) for p in plan.tuning() if piece.has(p)} == {(r, "fedavg") for r in tuned}


def test_a_pattern_of_nothing_is_refused_in_one_line(plan_of: PlanOf) -> None:
    with pytest.raises(InputError) as error:
        piece_of(plan_of(), "some")
    assert str(error.value) == (
        "--only some: is none of its regimes and methods, such as all/single; write REGIME or REGIME/METHOD, * for any "
        "text"
    )


def test_the_data_of_other_pieces_are_not_looked_at(plan_of: PlanOf) -> None:
    plan = plan_of(regimes={"all": {}, "too-many": {"federation.split.train_subjects": 100}})
    check_data(plan, piece_of(plan, "all"))
    with pytest.raises(InputError, match="train_subjects"):
        check_data(plan)


@pytest.mark.slow
def test_pieces_together_are_the_study(
    finished: Path, plan_of: PlanOf, run: Callable[..., StudyResult], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert run(plan_of(), folder, only="*/fedavg").failed == ()
    assert set(results(folder)["method"]) == {"fedavg"}
    write_failures(folder, {"all/single/seed-1": "no space left"})
    assert run(plan_of(), folder, only="all/fedmri").failed == (), "what failed elsewhere is not this piece's"
    assert read_failures(folder) == {"all/single/seed-1": "no space left"}
    assert run(plan_of(), folder).failed == ()
    assert read_failures(folder) == {}
    assert_same_results(finished, folder)
