"""A study: every point is run once, a stopped one goes on to the same results, and bad studies run nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from fedsim.analysis.scores import QUALITIES, VOLUME_COLUMNS, mean_over_sites
from fedsim.core.errors import InputError
from fedsim.engine.ray.backend import RayBackend
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds
from fedsim.report.conclude import conclude
from fedsim.study.kinds import Tune
from fedsim.study.results import POINT_COLUMNS
from fedsim.study.runner import StudyResult, run_study
from fedsim.study.study import StudyPlan, load_study
from fedsim.workload.engine import Engine
from fedsim.workload.reading import read_yaml, write_yaml

Fedsim = Callable[..., tuple[int, str, str]]
SITES, METHODS = ("A", "B"), ("single", "fedavg", "fedmri")
STUDIES = [p for p in sorted((Path(__file__).parents[2] / "workloads").glob("*.yaml")) if "kind" in read_yaml(p)]


def site(name: str, contrast: str, **more: Any) -> dict[str, Any]:
    source = {"format": "phantom", "subjects": 4, "slices": 3, "size": 48, "contrast": contrast}
    return {"name": name, "source": source, **more}


def study_content(**keys: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "workload": "small.yaml",
        "set": {"training.rounds": 2, "engine.backend": "serial"},
        "seeds": [1, 2],
        "reference": "fedmri",
        "methods": {"single": None, "fedavg": {}, "fedmri": {"algorithm.beta": 1}},
        **keys,
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base workload; data are imported once."""
    folder = tmp_path_factory.mktemp("study")
    base = {
        "name": "small",
        "federation": {
            "cache": str(folder / "cache"),
            "matrix": [32, 32],
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            "sites": [site("A", "t1"), site("B", "flair", mask={"kind": "radial", "acceleration": 3})],
        },
        "model": {"channels": 2, "pools": 2},
        "training": {"batch_size": 3, "lr": 1e-3},
        "engine": {"keep_last": 1},
    }
    (folder / "small.yaml").write_text(write_yaml(base))
    return folder


@pytest.fixture
def plan_of(home: Path, tmp_path: Path) -> Callable[..., StudyPlan]:
    """Makes the plan of the tiny study with other keys; `overrides` are what --set would say."""

    def make(*overrides: str, **keys: Any) -> StudyPlan:
        path = tmp_path / "tiny.yaml"
        path.write_text(write_yaml(study_content(workload=str(home / "small.yaml"), **keys)))
        return load_study(path, overrides)

    return make


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """One Ray for all studies here."""
    backend = RayBackend(Engine())
    yield
    backend.close()


@pytest.fixture
def run(ray_session: None) -> Callable[..., StudyResult]:
    def run(plan: StudyPlan, folder: Path, **more: Any) -> StudyResult:
        return run_study(plan, folder, **more)

    return run


@pytest.fixture(scope="module")
def finished(home: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study; read it, do not write to it."""
    (home / "tiny.yaml").write_text(write_yaml(study_content()))
    folder = tmp_path_factory.mktemp("finished") / "tiny"
    assert not run_study(load_study(home / "tiny.yaml"), folder).failed
    return folder


def results(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "volumes.parquet").drop(columns="seconds")


def assert_same_results(one: Path, two: Path) -> None:
    pd.testing.assert_frame_equal(results(one), results(two), check_exact=True)
    pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "curves.parquet") for folder in (one, two)))


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
    assert row.filter(like="_share").sum() == pytest.approx(1)


def test_volumes_have_a_row_a_point_and_test_volume(finished: Path) -> None:
    frame = pd.read_parquet(finished / "volumes.parquet")
    assert list(frame.columns) == list(VOLUME_COLUMNS)
    points = {(m, s, where) for m in ("single", "fedavg", "fedmri") for s in (1, 2) for where in SITES}
    assert set(frame[["method", "seed", "site"]].itertuples(index=False, name=None)) == points
    assert len(frame) == len(points), "one test volume a site"
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
        f"{name}.{kind}" for name in ("overview", *QUALITIES) for kind in ("csv", "md", "tex")
    }
    names = ("convergence", *(f"differences-{quality}" for quality in QUALITIES), "latents-all", "panel-all-1")
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


# Failures


@pytest.mark.slow
def test_a_failed_point_is_named_the_others_finish_and_it_is_tried_again(
    finished: Path, plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    blocked = folder / "runs" / "all" / "fedavg" / "seed-2"
    run(plan_of(seeds=[1], methods={"fedmri": {"algorithm.beta": 1}}), folder)
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    done = run(plan_of(), folder)
    assert [line.partition(":")[0] for line in done.failed] == ["all/fedavg/seed-2"]
    assert "is a file" in done.failed[0]
    assert list(pd.read_parquet(folder / "failed.parquet")["point"]) == ["all/fedavg/seed-2"]
    assert len(results(folder)) == len(results(finished)) - len(SITES)
    blocked.unlink()
    assert not run(plan_of(), folder).failed
    assert not len(pd.read_parquet(folder / "failed.parquet"))
    assert_same_results(finished, folder)


def test_a_point_whose_process_dies_is_a_failed_point(
    plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], home: Path, tmp_path: Path
) -> None:
    """The method is a user's own: its file travels with the study."""
    (home / "dying.py").write_text(
        "import os\nfrom fedsim.algorithms.fedavg import FedAvg\n\n"
        "class Dying(FedAvg):\n    name: str = 'dying:Dying'\n"
        "    def train(self, learner, received, phase):\n        os._exit(3)\n"
    )
    methods = {"fedmri": {"algorithm.beta": 1}, "dying": {"algorithm.name": "dying:Dying"}}
    (line,) = run(plan_of(methods=methods, seeds=[1]), tmp_path / "out").failed
    assert line.startswith("all/dying/seed-1: WorkerCrashedError: ")
    assert set(results(tmp_path / "out")["method"]) == {"fedmri"}
    assert (tmp_path / "out" / "dying.py").exists()


@pytest.mark.slow
def test_what_points_warn_of_is_said_once(
    plan_of: Callable[..., StudyPlan], run: Callable[..., StudyResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(plan_of(methods={"fedmri": {"training.batch_size": 9}}), tmp_path / "out")
    (text,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert text.startswith("all/fedmri/seed-")
    assert "the contrastive term cannot act" in text


# Tuning


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


def test_tuning_in_one_regime_serves_all(plan_of: Callable[..., StudyPlan]) -> None:
    regimes = {"few": {"federation.split.train_subjects": 1}, "all": {}}
    keys: dict[str, Any] = {"regimes": regimes, "methods": {"fedavg": {}, "fedmri": {}}}
    tune = {"seed": 9, "grid": {"training.lr": [1e-3, 1e-2]}, "methods": {"fedmri": {"algorithm.beta": [1, 2]}}}
    everywhere, once = plan_of(**keys, tune=tune), plan_of(**keys, tune={**tune, "regime": "all"})
    assert len(everywhere.tuning()) == 2 * len(once.tuning()) == 2 * (2 + 4)
    assert {point.regime for point in once.tuning()} == {"all"}
    assert {once.tuned_in(regime) for regime in regimes} == {"all"}


def test_candidates_are_the_product_of_the_axes() -> None:
    tune = Tune(seed=1, grid={"training.lr": (1, 2)}, methods={"a": {"algorithm.mu": (3, 4)}})
    assert tune.candidates("b") == [{"training.lr": 1}, {"training.lr": 2}]
    assert [tuple(one.values()) for one in tune.candidates("a")] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert Tune(seed=1).candidates("a") == []


# The study file


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_valid(path: Path) -> None:
    plan = load_study(path)
    assert plan.study.name == path.stem
    assert plan.finals(dict.fromkeys(plan.pairs, 0))


def test_layers_override_one_another(plan_of: Callable[..., StudyPlan]) -> None:
    """Base, set, regime, method, candidate: the later one wins; and the seed is the point's."""
    plan = plan_of(
        "set.training.lr=2e-3",
        set={"training.batch_size": 1, "training.rounds": 2},
        regimes={"slow": {"training.batch_size": 2, "training.lr_step": 1}},
        methods={"fedmri": {"training.lr_step": 2, "algorithm.beta": 7}, "again": {"algorithm.name": "fedavg"}},
        tune={"seed": 9, "methods": {"fedmri": {"algorithm.beta": [1, 5]}}},
    )
    workload = plan.finals({("slow", "fedmri"): 1})[1].workload
    assert (workload.training.lr, workload.training.batch_size, workload.training.lr_step) == (2e-3, 2, 2)
    assert (workload.algorithm.name, workload.algorithm.model_dump()["beta"], workload.seed) == ("fedmri", 5, 2)
    assert plan.finals({("slow", "again"): 0})[0].workload.algorithm.name == "fedavg"


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("seeds=[7]", lambda plan: [p.seed for p in plan.finals({("all", "single"): 0})] == [7]),
        ("methods.fedmri.algorithm.beta=3", lambda plan: plan.study.methods["fedmri"] == {"algorithm.beta": 3}),
        ("methods.fedprox={}", lambda plan: plan.study.methods["fedprox"] == {}),
        ("regimes.few.training.lr=1", lambda plan: plan.study.regimes == {"few": {"training.lr": 1}}),
        ("set.federation.matrix=[48, 48]", lambda plan: plan.study.set["federation.matrix"] == [48, 48]),
        ("tune.seed=9", lambda plan: plan.study.tune.seed == 9),
    ],
)
def test_set_reaches_dotted_workload_keys(
    plan_of: Callable[..., StudyPlan], setting: str, found: Callable[[StudyPlan], bool]
) -> None:
    assert found(plan_of(setting))


BAD_STUDIES = [
    ("sedds=[1]", "sedds: unknown key; did you mean 'seeds'?"),
    ("kind=ablate", "kind: unknown 'ablate'; did you mean 'ablation'?"),
    ("kind=[1]", "kind: unknown [1]; known: compare, ablation"),
    ("kind=ablation", "axes: is required"),
    ("seeds=[1, 1]", "seeds: 1 is there twice"),
    ("seeds=[]", "seeds: "),
    ("reference=fedprox", "reference: 'fedprox' is none of methods (single, fedavg, fedmri)"),
    ("workload=nowhere.yaml", "nowhere.yaml: cannot be read (No such file or directory)"),
    ("methods.a/b={algorithm.name: fedavg}", "methods: must be letters, digits, '_' and '-', at most 64, not 'a/b'"),
    ("regimes={../up: {}}", "regimes: must be letters"),
    ("methods.fedavgg={}", "method fedavgg: algorithm.name: unknown 'fedavgg'; did you mean 'fedavg'?"),
    ("methods.fedavg.training.round=3", "method fedavg: training.round: unknown key; did you mean 'rounds'?"),
    ("methods.fedavg.algorithm.beta=3", "algorithm.beta: is not a key of fedavg; known: name, weighting"),
    ("methods.fedavg.seed=3", "methods.fedavg: seed is not for overrides; list seeds under seeds"),
    ("set.training.lr=-1", "training.lr: Input should be greater than 0, got -1"),
    ("set.federation.clients=1", "all/single/seed-1: federation.clients: 1 is fewer than the 2 sites"),
    ("tune={seed: 1}", "tune.seed: 1 is one of seeds"),
    ("tune={seed: 9, regime: few}", "tune.regime: 'few' is none of regimes (all)"),
    ("tune={seed: 9, methods: {ditto: {algorithm.mu: [1]}}}", "tune.methods: 'ditto' is none of methods"),
    ("tune={seed: 9, grid: {training.lr: [0]}}", "training.lr: Input should be greater than 0"),
    ("tune={seed: 9, grid: {training.lr: []}}", "tune.grid: Tuple should have at least 1 item"),
    ("methods.fedavg.metrics.protocol=slice", "all/single/seed-1 and all/fedavg/seed-1: metrics.protocol differs"),
    ("methods.fedavg.federation.split={train: 0.25, val: 0.25, test: 0.5}", "the test split differs (site A, volume"),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "message"), BAD_STUDIES)
def test_a_bad_study_gets_one_line_and_leaves_nothing(
    fedsim: Fedsim, home: Path, tmp_path: Path, setting: str, message: str
) -> None:
    (home / "bad.yaml").write_text(write_yaml(study_content()))
    status, _, err = fedsim("study", home / "bad.yaml", "--set", setting)
    assert status == 2, err
    assert message in err
    assert err.startswith("fedsim: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "no study folder"


def test_failures_give_status_1_and_their_names(fedsim: Fedsim, home: Path, tmp_path: Path, ray_session: None) -> None:
    (home / "wild.yaml").write_text(write_yaml(study_content(seeds=[1])))
    status, out, err = fedsim("study", home / "wild.yaml", "--set", "methods.fedavg.training.lr=1e30", "--out", "out")
    assert status == 1
    assert err.startswith("fedsim: 1 failed, the rest are done; all/fedavg/seed-1: diverged: client A, round 1: the")
    assert err.count("\n") == 1
    assert "points 3/3" in out
    assert "mean over sites" in out
    assert set(results(tmp_path / "out")["method"]) == {"single", "fedmri"}


@pytest.mark.long
def test_ctrl_c_stops_the_points_with_checkpoints(home: Path, tmp_path: Path) -> None:
    keys = {"engine.backend": "serial", "training.rounds": 600, "engine.checkpoint_every": 500}
    (home / "long.yaml").write_text(write_yaml(study_content(seeds=[1], set=keys)))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        "from fedsim.cli import main; main()",
        "study",
        home / "long.yaml",
        "--out",
        out,
    ]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    ledgers: list[Path] = []
    while not any(len(pd.read_parquet(path)) >= 3 for path in ledgers) and time.monotonic() < deadline:
        time.sleep(0.05)
        ledgers = list(out.glob("runs/*/*/*/rounds.parquet"))
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the whole foreground group
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err.decode()
    assert b"resume with: fedsim study" in err
    reached = [complete_rounds(path.parent) for path in out.glob("runs/*/*/*/rounds.parquet")]
    assert all(len(rounds) == 1 and rounds[0] < 500 for rounds in reached), "where they were, not on schedule"


@pytest.mark.long
def test_a_killed_study_finishes_only_what_was_missing(home: Path, finished: Path, tmp_path: Path) -> None:
    (home / "killed.yaml").write_text(write_yaml(study_content()))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        "from fedsim.cli import main; main()",
        "study",
        home / "killed.yaml",
        "--out",
        out,
    ]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("points 2/6"))
        os.killpg(process.pid, signal.SIGKILL)
    assert line
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/*/evaluation.parquet")}
    assert 2 <= len(before) < 6
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250)
    (left,) = map(int, re.findall(r"^points 1/(\d)", again.stdout, re.MULTILINE))
    assert 0 < left <= 6 - len(before), "one may have ended beside, before its process was gone too"
    assert f"points {left}/{left} " in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done is left alone"
    assert_same_results(out, finished)
