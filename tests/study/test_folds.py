"""A study with folds: every subject is tested once per seed, and no fold's test subject chooses its settings."""

from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedsim.core.errors import InputError
from fedsim.engine.federation import assemble
from fedsim.report.conclude import conclude
from fedsim.study.runner import StudyResult, check_data
from fedsim.study.study import Case, Point, StudyPlan
from fedsim.workload.reading import write_yaml
from tests.conftest import Fedsim

from .conftest import SEARCH, study_content

PlanOf = Callable[..., StudyPlan]
ENDPOINT = {"metric": "psnr", "margin": 0.2}
TUNE = {"seed": 9, "methods": {"fedmri": {"algorithm.beta": [1, 5]}}}


def subjects(point: Point, *parts: str) -> set[tuple[str, str]]:
    rows = assemble(point.workload).manifest
    return set(rows.loc[rows["split"].isin(parts), ["site", "subject"]].itertuples(index=False, name=None))


@pytest.mark.slow
def test_a_point_a_fold_and_every_subject_is_tested_once_per_seed(plan_of: PlanOf) -> None:
    plan = plan_of(folds=2)
    assert plan.describe() == "1 regime x 3 methods x 2 seeds x 2 folds"
    points = plan.examples()
    assert len(points) == 12
    assert [p.label for p in points[:4]] == [f"all/{m}/seed-1-fold-1" for m in ("single", "fedavg", "fedmri")] + [
        "all/single/seed-1-fold-2"
    ]
    for seed in (1, 2):
        own = [point for point in points if point.method == "fedmri" and point.seed == seed]
        tested = Counter(one for point in own for one in subjects(point, "test"))
        assert set(tested.values()) == {1}
        assert len(tested) == 8, "four at each site"
    check_data(plan)


@pytest.mark.slow
def test_tuning_of_a_fold_never_sees_its_test_subjects(plan_of: PlanOf) -> None:
    """The division of phantoms into folds is by name, and each seed draws other heads; names are what counts here."""
    plan = plan_of(folds=2, tune=TUNE)
    assert [point.label for point in plan.tuning()] == [
        f"all/fedmri/tune-{number}-fold-{fold}" for fold in (1, 2) for number in (0, 1)
    ]
    tests = {point.fold: subjects(point, "test") for point in plan.examples() if point.seed == 1}
    for point in plan.tuning():
        assert point.workload.federation.folds == plan.examples()[0].workload.federation.folds.model_copy(  # type: ignore[union-attr]
            update={"test": point.fold}
        )
        assert not subjects(point, "train", "val") & subjects(point, "test")
    assert tests[1] | tests[2] == subjects(plan.tuning()[0], "train", "val", "test")
    chosen = {case: plan.candidates(case.method)[case.fold == 2 and case.method == "fedmri"] for case in plan.cases}
    betas = {
        (point.fold, point.workload.algorithm.model_dump()["beta"])
        for point in plan.finals(chosen)
        if point.method == "fedmri"
    }
    assert betas == {(1, 1.0), (2, 5.0)}, "each fold has the settings that were chosen in it"


def test_a_search_runs_in_every_fold(plan_of: PlanOf) -> None:
    plan = plan_of(folds=2, tune={**SEARCH, "trials": 2})
    assert plan.searched == [Case("all", m, fold) for fold in (1, 2) for m in ("single", "fedavg", "fedmri")]
    assert plan.tuning_runs == 2 * 3 * 2


REFUSED = {
    "more folds than subjects": (["folds=5"], "all/single/seed-1-fold-1: site A: 4 subjects cannot fill 5 folds"),
    "too few left": (["folds=2", "set.federation.sites.A.source.subjects=2"],
                     "site A: 2 folds of 2 subjects leave 1 for 2 parts"),
    "one fold": (["folds=1"], "folds: Input should be greater than or equal to 2"),
    "folds twice": (["folds=2", "set.federation.folds={count: 3}"], "set: federation.folds is set by folds; leave it"),
    "no margin": (["endpoint={metric: psnr}"], "endpoint.margin: is required"),
    "no margin at all": (["endpoint={margin: 0}"], "endpoint.margin: Input should be greater than 0"),
    "another metric": (["endpoint={metric: psnrr, margin: 1}"], "endpoint.metric: "),
    "boxes that are not there": (["endpoint={metric: roi_psnr, margin: 1}"],
                                 "endpoint.metric: roi_psnr needs metrics.boxes; all/single/seed-1 has none"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_protocol_gets_one_line_and_runs_nothing(fedsim: Fedsim, home: Path, tmp_path: Path, case: str) -> None:

    settings, message = REFUSED[case]
    (home / "protocol.yaml").write_text(write_yaml(study_content()))
    status, _, err = fedsim("study", home / "protocol.yaml", *(word for one in settings for word in ("--set", one)))
    assert (status, err.count("\n")) == (2, 1), err
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_study_with_folds_and_an_endpoint_from_start_to_end(
    plan_of: PlanOf, run: Callable[..., StudyResult], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    keys = {"folds": 2, "seeds": [1], "endpoint": ENDPOINT, "methods": {"single": {}, "fedmri": {"algorithm.beta": 1}}}
    plan = plan_of(**keys)
    stopped = run(plan, folder, stop=lambda: len(list(folder.glob("runs/*/*/*/evaluation.parquet"))) >= 1)
    assert stopped.stopped
    text = StringIO()
    conclude(folder, Console(file=text, width=120))
    assert not run(plan, folder).failed
    volumes = pd.read_parquet(folder / "volumes.parquet")
    tested = volumes[volumes["method"] == "fedmri"].groupby(["site", "subject"])["fold"].nunique()
    assert (len(tested), set(tested)) == (8, {1})
    conclude(folder, Console(file=text, width=120))
    said = text.getvalue()
    assert "endpoint: PSNR [dB] of test volumes, patient by patient; margin 0.2 dB" in said
    assert "8 patients, p " in said, said
    assert "the same for all methods of a regime: candidates, rounds, rounds scored, steps" in said
    names = {path.stem for path in (folder / "tables").iterdir()}
    assert {"endpoint", "worse-than-alone", "budgets"} <= names
    assert (folder / "figures" / "patients.png").exists()
    page = (folder / "report.html").read_text()
    assert "<h2>Endpoint</h2>" in page
    assert "in 2 folds, each tested once" in page
    endpoint = pd.read_csv(folder / "tables" / "endpoint.csv")
    assert dict(endpoint.set_index("method")["patients"]) == {"single": 8}
    for other, message in (
        (
            {"endpoint": {**ENDPOINT, "margin": 0.5}},
            "endpoint.margin: was 0.2 and is now 0.5; a resumed study must keep it",
        ),
        ({"folds": 3}, "folds: was 2 and is now 3"),
    ):
        with pytest.raises(InputError, match=message):
            run(plan_of(**{**keys, **other}), folder)
