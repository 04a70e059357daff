"""What each kind of study sweeps over, and that its points do what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedsim.analysis.scores import QUALITIES
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.report.panels import panels_of
from fedsim.study.bare_loop import comparable, floor_seconds
from fedsim.study.beta import beta_told, beta_warning
from fedsim.study.point import run_point
from fedsim.study.results import point_row
from fedsim.study.runner import run_study
from fedsim.study.study import StudyPlan, load_study
from fedsim.workload.reading import write_yaml
from fedsim.workload.schema import Workload
from tests.engine.plans import node

PlanOf = Callable[..., StudyPlan]
SMALL = {"set": {"engine.backend": "serial"}, "seeds": [1], "methods": {"fedavg": None}}


@pytest.fixture
def plan_of(tmp_path: Path) -> PlanOf:
    """Makes the plan of a study of phantom sites."""
    source = {"format": "phantom", "subjects": 4, "slices": 3, "size": 48}
    base = {
        "name": "small",
        "federation": {
            "cache": str(tmp_path / "cache"),
            "matrix": [32, 32],
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            "sites": [{"name": "P", "count": 2, "source": source}],
        },
        "model": {"channels": 2, "pools": 1},
        "training": {"rounds": 2, "batch_size": 3, "lr": 1e-3},
        "engine": {"clients_per_actor": "auto"},
    }
    (tmp_path / "small.yaml").write_text(write_yaml(base))

    def make(*overrides: str, **keys: Any) -> StudyPlan:
        path = tmp_path / "tiny.yaml"
        path.write_text(write_yaml({"name": "tiny", "workload": "small.yaml", **SMALL, **keys}))
        return load_study(path, overrides)

    return make


def clients_of(plan: StudyPlan) -> dict[str, int]:
    return {
        point.regime: point.workload.federation.clients or len(point.workload.federation.expanded_sites())
        for point in plan.examples()
    }


TERM = {"fedmri": {"algorithm.beta": 1}, "fedavg": None}
SCALED = {"algorithm.name": "fedmri", "algorithm.beta_scaling": "clients"}
SWEEP = {"kind": "client-count", "clients": [2, 4], "data": "per_client"}
SAID = "how beta is chosen: {} (the contrastive term is at most beta / clients)"


@pytest.mark.parametrize(
    ("keys", "told", "warned"),
    [
        ({**SWEEP, "methods": TERM}, "fixed in fedmri", True),
        ({**SWEEP, "methods": {**TERM, "s": SCALED}}, "both ways, fixed in fedmri; beta_scaling: clients in s", False),
        ({**SWEEP, "methods": {"s": SCALED}}, "beta_scaling: clients in s", False),
        ({**SWEEP, "methods": {"fedavg": None}}, None, False),
        ({**SWEEP, "methods": {"fedmri": {"algorithm.beta": 0}}}, None, False),
        ({"kind": "ablation", "axes": {"federation.clients": [2, 4]}, "methods": TERM}, "fixed in fedmri", True),
        ({"regimes": {"a": {}, "b": {"federation.clients": 4}}, "methods": TERM}, "fixed in fedmri", True),
        (
            {"regimes": {"a": {}, "b": {"federation.clients": 4, "algorithm.beta": 2}}, "methods": {"fedmri": None}},
            "set by hand in each regime in fedmri",
            False,
        ),
        ({"regimes": {"a": {}, "b": {"training.lr": 0.1}}, "methods": TERM}, None, False),
    ],
)
def test_a_study_of_client_counts_says_how_beta_is_chosen(
    plan_of: PlanOf, keys: dict[str, Any], told: str | None, warned: bool
) -> None:
    plan = plan_of(**keys)
    assert beta_told(plan) == (SAID.format(told) if told else None)
    warning = beta_warning(plan)
    assert (warning is not None) == warned
    if warning:
        assert warning.startswith("fedmri: algorithm.beta is fixed while the clients in a round go from 2 to 4: ")
        assert "algorithm.beta_scaling=clients" in warning


def test_an_ablation_has_every_combination(plan_of: PlanOf) -> None:
    plan = plan_of(kind="ablation", axes={"training.lr": [0.1, 0.01], "federation.clients": [None, 4]})
    assert plan.regimes == {
        "lr-0p1_clients-None": {"training.lr": 0.1, "federation.clients": None},
        "lr-0p1_clients-4": {"training.lr": 0.1, "federation.clients": 4},
        "lr-0p01_clients-None": {"training.lr": 0.01, "federation.clients": None},
        "lr-0p01_clients-4": {"training.lr": 0.01, "federation.clients": 4},
    }
    assert list(clients_of(plan).values()) == [2, 4, 2, 4]
    assert plan.study.axes_of("lr-0p1_clients-4") == {"training.lr": 0.1, "federation.clients": 4}


def test_an_ablation_varies_one_key_at_a_time(plan_of: PlanOf) -> None:
    rate, contrast = "training.lr", "federation.sites.0.source.contrast"
    axes = {rate: [0.1, 0.2, 0.4], contrast: ["t1", ["t1", "t2"]]}
    plan = plan_of(kind="ablation", axes=axes, vary="one")
    assert plan.regimes == {
        "base": {rate: 0.1, contrast: "t1"},
        "lr-0p2": {rate: 0.2, contrast: "t1"},
        "lr-0p4": {rate: 0.4, contrast: "t1"},
        "contrast-_t1_t2": {rate: 0.1, contrast: ["t1", "t2"]},
    }
    assert plan.study.base == {rate: 0.1, contrast: "t1"} == plan.study.axes_of("base")
    assert plan.study.axes_of("contrast-_t1_t2")[contrast] == '["t1", "t2"]', "as text, in a column of text"
    assert plan_of(kind="ablation", axes=axes).study.base == {}
    assert plan_of("vary=one", kind="ablation", axes=axes).study.base, "also by --set"


def test_the_data_stay_the_same_or_grow_with_the_clients(plan_of: PlanOf) -> None:
    total = plan_of(kind="client-count", clients=[2, 4])
    assert clients_of(total) == {"clients-2": 2, "clients-4": 4}
    assert all(len(p.workload.federation.expanded_sites()) == 2 for p in total.examples())
    more = plan_of(kind="client-count", clients=[2, 5], data="per_client")
    assert clients_of(more) == {"clients-2": 2, "clients-5": 5}
    assert [len(p.workload.federation.expanded_sites()) for p in more.examples()] == [2, 5]
    half = plan_of(kind="client-count", clients=[1, 2], key="training.rounds")
    assert [p.workload.training.rounds for p in half.examples()] == [1, 2]


@pytest.mark.slow
def test_a_point_of_many_registered_sites_has_the_costs_of_its_cohort(plan_of: PlanOf, tmp_path: Path) -> None:
    keys = {"engine.backend": "serial", "training.cohort": 2, "metrics.clients": 3, "training.rounds": 1}
    plan = plan_of(kind="client-count", clients=[300], data="per_client", set=keys)
    (point,) = plan.examples()
    assert run_point(point.workload, tmp_path / "run", "test", lambda: False).error == ""
    run = Run(tmp_path / "run")
    row = point_row(plan, point, run)
    assert (row["clients"], row["participants"], row["tested"]) == (300, 2, 3)
    assert row["psnr_low"] < row["psnr"] < row["psnr_high"]
    assert [panel.client for panel in panels_of(run, 2)] == run.evaluation["client"].unique()[:2].tolist()
    assert row["uplink_bytes"] == 2 * 4 * sum(values.numel() for values in run.model("P-001").parameters())


def test_scaling_grows_cores_and_with_weak_scaling_the_clients(plan_of: PlanOf) -> None:
    strong = plan_of(kind="scaling-strong", nodes=[1, 2], set={})
    assert {p.workload.engine.nodes for p in strong.examples()} == {1, 2}
    assert set(clients_of(strong).values()) == {2}
    weak = plan_of(kind="scaling-weak", cores=[1, 2], clients=3, set={})
    assert clients_of(weak) == {"cores-1": 3, "cores-2": 6}
    assert weak.study.axes_of("cores-2") == {"cores": 2}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "ablation", "axes": {}}, "axes: "),
        ({"kind": "ablation", "axes": {"training.lr": [0.1], "model.nom": [1]}}, "model.nom: unknown key"),
        ({"kind": "ablation", "axes": {"training.lr": [0.1, 0.1]}}, "two combinations are both called lr-0p1"),
        ({"kind": "ablation", "axes": {"training.lr": [0.1, 0.2, 0.1]}, "vary": "one"}, "are both called base"),
        (
            {"kind": "ablation", "axes": {"training.lr": [0.1]}, "vary": "two"},
            "vary: Input should be 'together' or 'one'",
        ),
        ({"kind": "ablation", "axes": {"model": [1]}}, "axes: model would replace the whole section"),
        ({"kind": "ablation", "axes": {"seed": [1]}}, "axes: seed cannot be overridden"),
        ({"kind": "client-count", "clients": [0]}, "clients.0: Input should be greater than or equal to 1"),
        ({"kind": "client-count", "clients": [2], "axes": {}}, "axes: unknown key"),
        ({"kind": "client-count", "clients": [2], "data": "all"}, "data: Input should be 'total' or 'per_client'"),
        ({"kind": "scaling-strong"}, "scaling-strong: give either cores or nodes"),
        (
            {"kind": "scaling-weak", "cores": [1], "nodes": [1], "clients": 2},
            "scaling-weak: give either cores or nodes",
        ),
        ({"kind": "scaling-weak", "cores": [1]}, "clients: is required"),
        ({"kind": "scaling-strong", "cores": [1]}, "engine.backend: scaling-strong needs ray"),
    ],
)
def test_bad_sweeps_get_one_line(plan_of: PlanOf, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r"tiny\.yaml: ") as error:
        plan_of(**keys)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "gpus", "like"),
    [
        ((), 0, True),
        ((), 1, False),
        (("engine.device=cpu",), 1, True),
        (("training.fuse=2",), 0, False),
        (("training.precision=bfloat16",), 0, False),
    ],
)
def test_the_bare_loop_runs_beside_runs_that_train_as_it_does(
    make_workload: Callable[..., Workload], keys: tuple[str, ...], gpus: int, like: bool
) -> None:
    assert comparable(make_workload("engine.backend=ray", *keys), [node("here", gpus=gpus)]) == like


@pytest.mark.long
def test_a_scaling_study_has_its_floor_and_its_rounds_the_same_bits(plan_of: PlanOf, tmp_path: Path) -> None:
    plan, folder = plan_of(kind="scaling-strong", cores=[1, 2], set={"metrics.every": 0}), tmp_path / "study"
    assert not run_study(plan, folder).failed
    table = pd.read_parquet(folder / "results.parquet").set_index("cores")
    one, two = (Run(folder / "runs" / f"cores-{cores}" / "fedavg" / "seed-1") for cores in (1, 2))
    assert list(one.rounds["slots"]) == [1, 1]
    assert list(two.rounds["slots"]) == [2, 2]
    assert two.clients["pid"].nunique() == 2
    floor = pd.read_parquet(one.path / "floor.parquet")
    assert list(floor["round"]) == [1, 2]
    assert table["floor_seconds"][1] == floor_seconds(one.path) == floor["seconds"][1] > 0
    for quality in QUALITIES:
        assert list(one.evaluation[quality]) == list(two.evaluation[quality]), quality
    assert list(one.rounds["loss"]) == list(two.rounds["loss"])


TIMED = {"engine.backend": "serial", "time.latency_s": 10, "time.deadline_s": 5, "time.buffer": 1}


def test_an_ablation_varies_modes_though_each_has_keys_of_its_own(plan_of: PlanOf) -> None:
    plan = plan_of(kind="ablation", set=TIMED, axes={"time.mode": ["synchronous", "deadline", "buffered"]})
    modes = [point.workload.time and point.workload.time.mode for point in plan.examples()]
    assert modes == ["synchronous", "deadline", "buffered"]
    assert list(plan.study.axes_of("mode-deadline")) == ["time.mode"]


def test_methods_of_a_comparison_set_several_keys_of_time_at_once(plan_of: PlanOf) -> None:
    buffered = {"algorithm.name": "fedavg", "time.mode": "buffered", "time.buffer": 2, "training.rounds": 4}
    plan = plan_of(set={"time.latency_s": 10}, methods={"fedavg": {}, "buffered": buffered}, reference="fedavg")
    rounds = {p.method: p.workload.training.rounds for p in plan.examples()}
    assert rounds == {"fedavg": 2, "buffered": 4}
    with pytest.raises(InputError, match=r"time would replace the whole section; write time.KEY"):
        plan_of(set={"time": {"latency_s": 10}})
