"""What a study file may say; a bad one gets one line and runs nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.study.runner import check_data
from fedsim.study.study import Case, StudyPlan, load_study
from fedsim.study.tune import UNTUNED
from fedsim.workload.reading import read_yaml, write_yaml
from tests.conftest import Fedsim

from .conftest import study_content

STUDIES = [p for p in sorted((Path(__file__).parents[2] / "workloads").glob("*.yaml")) if "kind" in read_yaml(p)]


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_valid(path: Path) -> None:
    plan = load_study(path)
    assert plan.study.name == path.stem
    assert plan.examples()


def test_layers_override_one_another(plan_of: Callable[..., StudyPlan]) -> None:
    """Base, set, regime, method, candidate: the later one wins; and the seed is the point's."""
    plan = plan_of(
        "set.training.lr=2e-3",
        set={"training.batch_size": 1, "training.rounds": 2},
        regimes={"slow": {"training.batch_size": 2, "training.lr_step": 1}},
        methods={"fedmri": {"training.lr_step": 2, "algorithm.beta": 7}, "again": {"algorithm.name": "fedavg"}},
        tune={"seed": 9, "methods": {"fedmri": {"algorithm.beta": [1, 5]}}},
    )
    workload = plan.finals({Case("slow", "fedmri"): plan.candidates("fedmri")[1]})[1].workload
    assert (workload.training.lr, workload.training.batch_size, workload.training.lr_step) == (2e-3, 2, 2)
    assert (workload.algorithm.name, workload.algorithm.model_dump()["beta"], workload.seed) == ("fedmri", 5, 2)
    assert plan.finals({Case("slow", "again"): UNTUNED})[0].workload.algorithm.name == "fedavg"


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("seeds=[7]", lambda plan: {p.seed for p in plan.examples()} == {7}),
        ("methods.fedmri.algorithm.beta=3", lambda plan: plan.study.methods["fedmri"] == {"algorithm.beta": 3}),
        ("methods.fedprox={}", lambda plan: plan.study.methods["fedprox"] == {}),
        ("regimes.few.training.lr=1", lambda plan: plan.study.regimes == {"few": {"training.lr": 1}}),
        ("set.federation.matrix=[48, 48]", lambda plan: plan.study.set["federation.matrix"] == [48, 48]),
        ("tune.seed=9", lambda plan: plan.study.tune.seed == 9),
        ("set={engine.on_error: drop}", lambda plan: plan.study.set == {"engine.on_client_error": "drop"}),
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
    ("seeds=[1, 1]", "seeds: 1 is listed twice"),
    ("seeds=[]", "seeds: "),
    ("reference=fedprox", "reference: 'fedprox' is not one of methods (single, fedavg, fedmri)"),
    ("workload=nowhere.yaml", "nowhere.yaml: cannot be read (No such file or directory)"),
    ("methods.a/b={algorithm.name: fedavg}", "methods: must be letters, digits, '_' and '-', at most 64, not 'a/b'"),
    ("regimes={../up: {}}", "regimes: must be letters"),
    ("methods.fedavgg={}", "method fedavgg: algorithm.name: unknown 'fedavgg'; did you mean 'fedavg'?"),
    ("methods.fedavg.training.round=3", "method fedavg: training.round: unknown key; did you mean 'rounds'?"),
    ("methods.fedavg.algorithm.beta=3", "algorithm.beta: is not a key of fedavg; known: name, weighting"),
    ("methods.fedavg.seed=3", "methods.fedavg: seed cannot be overridden; list seeds under seeds"),
    ("set.training.lr=-1", "training.lr: Input should be greater than 0, got -1"),
    ("set.federation.clients=1", "all/single/seed-1: federation.clients: 1 is fewer than the 2 sites"),
    ("tune={seed: 1}", "tune.seed: 1 is one of seeds"),
    ("tune={seed: 9, regime: few}", "tune.regime: 'few' is not one of regimes (all)"),
    ("tune={seed: 9, methods: {ditto: {algorithm.mu: [1]}}}", "tune.methods: 'ditto' is not one of methods"),
    ("tune={seed: 9, grid: {training.lr: [0]}}", "training.lr: Input should be greater than 0"),
    ("tune={seed: 9, grid: {algorithm.beta: [1, 2]}}", "method single: algorithm.beta: is not a key of single; "),
    ("tune={seed: 9, grid: {training.lr: []}}", "tune.grid: Tuple should have at least 1 item"),
    ("set={engine.on_error: drop, engine.on_client_error: abort}", "bad.yaml: set: engine.on_error is the old name of "
     "engine.on_client_error; delete one of them"),
    ("methods.fedavg={engine.on_failure: drop, engine.on_lost_process: abort}", "methods: engine.on_failure is "),
    ("tune={seed: 9, grid: {engine.on_error: [drop], engine.on_client_error: [abort]}}", "tune.grid: engine.on_error "),
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


def test_methods_of_unlike_precision_are_refused_before_anything_runs(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of(methods={"fedmri": {"algorithm.beta": 1}, "fedavg": {"training.precision": "bfloat16"}})
    with pytest.raises(InputError, match=r"training\.precision differs \(float32, bfloat16\); such numbers cannot be"):
        check_data(plan)
    check_data(plan_of(methods={"fedmri": {"algorithm.beta": 1}, "fedavg": {"training.fuse": 2}}))
