"""A study: every point is run once, and a stopped or grown one goes on to the same results."""

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from fedsim.analysis.comparison import interval
from fedsim.analysis.scores import QUALITIES, VOLUME_COLUMNS, mean_over_sites
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.report.conclude import conclude
from fedsim.study.results import POINT_COLUMNS
from fedsim.study.runner import StudyResult
from fedsim.study.study import StudyPlan, load_study

from .conftest import assert_same_results, results

SITES, METHODS = ("A", "B"), ("single", "fedavg", "fedmri")


# What a finished study holds


@pytest.mark.slow
def test_results_have_a_row_a_point(finished: Path) -> None:
    frame = pd.read_parquet(finished / "results.parquet")
    assert list(frame.columns) == list(POINT_COLUMNS)
    assert list(frame["point"]) == [f"all/{m}/seed-{s}" for s in (1, 2) for m in ("single", "fedavg", "fedmri")]
    row = frame.set_index("point").loc["all/fedmri/seed-2"]
    opened = Run(finished / row["workload"].removesuffix("/workload.yaml"))
    assert row["psnr"] == mean_over_sites(opened.evaluation, "psnr")
    assert row["clients"] == row["participants"] == 2
    assert row["negatives"] == "exact"
    assert frame.set_index("point")["negatives"].isna()["all/fedavg/seed-2"]
    assert row["round_seconds"] == opened.rounds["seconds"].iloc[1], "without the first"
    assert row["memory_bytes"] == opened.rounds["memory_bytes"].max() > 50e6
    assert row["driver_memory_bytes"] == opened.rounds["driver_memory_bytes"].max() > 50e6
    sites = opened.evaluation.groupby("site")["ssim"].mean()
    assert (row["ssim_low"], row["ssim_high"]) == interval(sites.tolist())[3:]
    assert row["tested"] == len(sites) == 2
    assert row.filter(like="_share").sum() == pytest.approx(1)


def test_volumes_have_a_row_a_point_and_test_volume(finished: Path) -> None:
    frame = pd.read_parquet(finished / "volumes.parquet")
    assert list(frame.columns) == [*VOLUME_COLUMNS, "effective_acceleration", "hfen", "zf_hfen"]
    points = {(m, s, where) for m in ("single", "fedavg", "fedmri") for s in (1, 2) for where in SITES}
    assert set(frame[["method", "seed", "site"]].itertuples(index=False, name=None)) == points
    assert len(frame) == len(points), "one test volume a site"
    assert frame["drawn"].all(), "the sites are phantoms whose heads come from the seed"
    assert (frame["study"] == "tiny").all()
    assert (frame["regime"] == "all").all()
    assert (frame["train_subjects"] == 2).all()


@pytest.mark.parametrize("method", ["single", "fedmri"])
def test_results_are_those_of_the_run_directories(finished: Path, method: str) -> None:
    frame, opened = pd.read_parquet(finished / "volumes.parquet"), Run(finished / "runs" / "all" / method / "seed-2")
    ours = frame[(frame["method"] == method) & (frame["seed"] == 2)].set_index("site")
    best, rounds = opened.round("best"), opened.rounds
    theirs = opened.evaluation.set_index("site")
    assert (theirs["split"] == "test").all()
    assert list(ours["psnr"]) == list(theirs["psnr"])
    assert set(ours["round"]) == {best}
    assert set(ours["uplink_bytes"]) == {rounds["uplink_bytes"].sum()}
    assert set(ours["downlink_bytes_best"]) == {rounds.loc[rounds["round"] <= best, "downlink_bytes"].sum()}
    assert set(ours["steps"]) == {opened.clients["steps"].sum()}
    curves = pd.read_parquet(finished / "curves.parquet")
    curve = curves[(curves["method"] == method) & (curves["seed"] == 2)]
    assert list(curve["psnr"]) == list(rounds["psnr"])
    assert list(curve["bytes"]) == list((rounds["uplink_bytes"] + rounds["downlink_bytes"]).cumsum())


@pytest.mark.slow
def test_it_writes_tables_and_figures_and_says_what_they_show(finished: Path) -> None:
    text = StringIO()
    conclude(finished, Console(file=text, width=120))
    assert {p.name for p in (finished / "tables").iterdir()} == {
        f"{name}.{kind}" for name in ("overview", "budgets", *QUALITIES, "hfen") for kind in ("csv", "md", "tex")
    }
    differences = (f"differences-{quality}" for quality in QUALITIES)
    names = ("convergence", *differences, "patients", "latents-all", "panel-all-1")
    assert {p.name for p in (finished / "figures").iterdir()} == {
        f"{n}.{kind}" for n in names for kind in ("png", "pdf")
    }
    assert "all: test split, mean over sites" in text.getvalue()
    assert "fedmri" in text.getvalue().splitlines()[-4]
    page = (finished / "report.html").read_text()
    shown = [f'data-kind="{kind}" data-method="{method}"' for kind in ("reconstruction", "error") for method in METHODS]
    assert [page.count(one) for one in shown] == [len(SITES)] * len(shown), "in the image viewer"
    assert "of 6 points are done" in page


def test_a_study_that_is_done_runs_nothing_again(
    finished: Path, run: Callable[..., StudyResult], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/**/*")}
    run(load_study(home / "tiny.yaml"), finished)
    assert {path: path.stat().st_mtime_ns for path in finished.glob("runs/**/*")} == before


# Going on


@pytest.mark.slow
def test_a_stopped_study_goes_on_to_the_same_results(
    finished: Path, plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], tmp_path: Path
) -> None:
    folder = tmp_path / "out"

    def two_are_done() -> bool:
        return len(list(folder.glob("runs/*/*/*/evaluation.parquet"))) >= 2

    assert run(plan_of(), folder, stop=two_are_done).stopped
    assert len(results(folder)) < len(results(finished))
    shutil.rmtree(next(folder.glob("runs/all/*/seed-1")))
    resumed = run(load_study(folder / "study.yaml"), folder)
    assert not resumed.stopped
    assert not resumed.failed
    assert_same_results(finished, folder)


@pytest.mark.long
def test_a_study_grows_by_seeds_methods_and_regimes(
    finished: Path, plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    run(plan_of(seeds=[2], methods={"fedmri": {"algorithm.beta": 1}}), folder)
    first = (folder / "runs/all/fedmri/seed-2/rounds.parquet").stat().st_mtime_ns
    run(plan_of(), folder)
    assert (folder / "runs/all/fedmri/seed-2/rounds.parquet").stat().st_mtime_ns == first
    assert_same_results(finished, folder)
    regimes = {"one-subject": {"federation.split.train_subjects": 1}, "all": {}}
    run(plan_of(regimes=regimes), folder)
    frame = pd.read_parquet(folder / "volumes.parquet")
    assert dict(frame.groupby("regime")["train_subjects"].mean()) == {"one-subject": 1, "all": 2}
    conclude(folder, Console(file=StringIO()))
    assert (folder / "figures" / "scarcity.png").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"seeds": [2, 3]}, "seeds: 1 was in the study and is missing"),
        ({"methods": {"single": {}, "fedmri": {"algorithm.beta": 1}}}, "methods: fedavg was in the study"),
        ({"methods": {"single": {}, "fedavg": {}, "fedmri": {"algorithm.beta": 2}}}, "algorithm.beta: was 1.0"),
        ({"set": {"training.rounds": 3, "engine.backend": "serial"}}, "training.rounds: was 2 and is now 3"),
        ({"set": {"training.rounds": 2, "training.lr": 1e-2}}, "regime all, method single: training.lr: was 0.001"),
        ({"name": "other"}, "name: was 'tiny' and is now 'other'"),
        ({"tune": {"seed": 9, "grid": {"training.lr": [1e-3, 1e-2]}}}, "tune.seed: was None and is now 9"),
    ],
)
def test_another_study_in_the_folder_is_refused(
    finished: Path,
    plan_of: Callable[..., StudyPlan],
    run: Callable[..., StudyResult],
    keys: dict[str, Any],
    message: str,
) -> None:
    before = (finished / "study.yaml").read_bytes()
    with pytest.raises(InputError, match=message):
        run(plan_of(**keys), finished)
    assert (finished / "study.yaml").read_bytes() == before


def test_a_folder_that_is_no_study_is_left_alone(
    plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a study"):
        run(plan_of(), tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["precious"]
