"""Studies that sweep over keys of simulated time."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.kept import copy_name
from fedsim.report.study_tables import StudyTables, study_tables
from fedsim.study.frozen import freeze, open_study
from fedsim.study.point import run_point
from fedsim.study.runner import check_data, run_study
from fedsim.study.study import StudyPlan

PlanOf = Callable[..., StudyPlan]
SMALL = {
    "training.rounds": 2, "engine.backend": "serial", "federation.matrix": [16, 16], "model.pools": 1,
    "time.compute.samples_per_s": 10, "time.uplink_mbps": 1,
}  # fmt: skip


def sweep(plan_of: PlanOf, axes: dict[str, Any], **settings: Any) -> StudyPlan:
    """The plan of an ablation of FedAvg at two hospitals with simulated time."""
    given = {**SMALL, **{key.replace("__", "."): value for key, value in settings.items()}}
    return plan_of(
        kind="ablation", methods={"fedavg": None}, reference="fedavg", seeds=[1], set=given, axes=axes,
    )  # fmt: skip


def played(plan: StudyPlan, folder: Path) -> StudyTables:
    """The tables of a study whose points have run, one after another in this process."""
    freeze(plan, folder)
    for point in plan.examples():
        assert not run_point(point.workload, folder / point.folder, point.part, lambda: False).error
    return study_tables(folder)


@pytest.mark.parametrize(
    ("axes", "settings", "message"),
    [
        ({"time.buffer": [1, 3]}, {}, "regime buffer-3, method fedavg: time.buffer: 3 uploads never wait"),
        (
            {"time.buffer": [1, 2], "time.concurrency": [2, 1]}, {},
            "regime buffer-2_concurrency-1, method fedavg: time.buffer: 2 uploads never wait together with 1",
        ),
        ({"time.concurrency": [2, 3]}, {}, "regime concurrency-3, method fedavg: time.concurrency: 3 cannot"),
        (
            {"time.hierarchy.regions": [1, 3]}, {"time__mode": "synchronous"},
            "regime regions-3, method fedavg: time.hierarchy.regions: 3 of 2 clients would be empty; lower it",
        ),
        ({"time.hierarchy.regions": [1, 2]}, {}, "regime regions-1, method fedavg: time: hierarchy: is for mode"),
        ({"time.staleness.power": [0.5, -1]}, {}, "regime power--1, method fedavg: time.staleness.power: "),
        ({"time.bufer": [1, 2]}, {}, "regime bufer-1, method fedavg: time.bufer: unknown key"),
        ({"time": [{"latency_s": 1}]}, {}, "axes: time would replace the whole section; write time.KEY: VALUE"),
        ({"time.available.trace": ["gone.csv"]}, {}, "trace-gonepcsv/fedavg/seed-1: time.available.trace: "),
    ],
    ids=lambda case: ascii(case)[:50] if isinstance(case, dict) else "",
)  # fmt: skip
def test_combinations_that_cannot_be_are_refused_in_one_line(
    plan_of: PlanOf, axes: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        check_data(sweep(plan_of, axes, **{"time__mode": "buffered", "time__buffer": 1, **settings}))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_sweep_over_buffers(plan_of: PlanOf, tmp_path: Path) -> None:
    tables = played(sweep(plan_of, {"time.buffer": [1, 2]}, time__mode="buffered"), tmp_path / "buffers")
    assert list(tables.overview["time.buffer"]) == [1, 2]
    assert (tables.times.reference, list(tables.times.reached["method"])) == ("buffer 1", ["buffer 1", "buffer 2"])
    figures = dict(tables.figures())
    curves, _ = figures["virtual-time"].axes
    assert [text.get_text() for text in figures["virtual-time"].legends[0].get_texts()] == ["buffer 1", "buffer 2"]
    assert curves.get_xlabel() == "simulated time [s]"
    assert figures["quality-psnr"].axes[0].get_xlabel() == "time.buffer"


@pytest.mark.slow
def test_a_sweep_over_regions_and_what_no_column_holds(plan_of: PlanOf, tmp_path: Path) -> None:
    """Lines that are one number or a range for each site."""
    axes = {"time.hierarchy.regions": [1, 2], "time.uplink_mbps": [1, [0.5, 2]]}
    tables = played(sweep(plan_of, axes), tmp_path / "regions")
    assert list(tables.points["time.uplink_mbps"]) == ["1", "[0.5, 2]"] * 2
    assert tables.times.reference == "regions 1, uplink_mbps 1"
    assert list(tables.times.reached["method"])[-1] == "regions 2, uplink_mbps [0.5, 2]"
    assert all(math.isfinite(end) for end in tables.times.reached["end_s"])
    assert any("time.hierarchy.regions has its best mean at" in line for line in tables.says("psnr"))


@pytest.mark.slow
def test_a_study_is_resumed_with_no_other_trace(plan_of: PlanOf, tmp_path: Path) -> None:
    """Not even if all its points are finished."""
    trace = tmp_path / "night.csv"
    trace.write_text("client,from_s,to_s\nA,0,99\n")
    keys = {"time__available__trace": str(trace), "training__rounds": 1}
    played(sweep(plan_of, {"time.jitter": [0]}, **keys), tmp_path / "nights")
    again = sweep(plan_of, {"time.jitter": [0]}, **keys)
    assert not run_study(again, tmp_path / "nights").failed
    trace.write_text("client,from_s,to_s\nA,0,98\n")
    with pytest.raises(InputError, match=r"^time\.available\.trace: is not what it was when .*seed-1 began"):
        run_study(again, tmp_path / "nights")


@pytest.mark.parametrize("trace", [{"time.available.trace": "night.csv"}, {"time.available": {"trace": "night.csv"}}])
def test_a_folder_opens_to_the_study_that_it_was_where_one_method_alone_has_files(
    plan_of: PlanOf, home: Path, tmp_path: Path, trace: dict[str, Any]
) -> None:
    (home / "night.csv").write_text("client,from_s,to_s\nA,0,99\n")
    methods = {
        "night": {"algorithm.name": "fedavg", "time.latency_s": 1, "training.init": "night.csv", **trace},
        "always": {"algorithm.name": "fedavg", "time.latency_s": 1},
        "untimed": {"algorithm.name": "fedavg"},
    }
    plan = plan_of(methods=methods, reference="night", seeds=[1], set={"engine.backend": "serial"})
    freeze(plan, tmp_path / "study")
    copy = tmp_path / "study" / copy_name(home / "night.csv")
    assert copy.read_bytes() == (home / "night.csv").read_bytes()
    for was, is_ in zip(plan.examples(), open_study(tmp_path / "study").examples(), strict=True):
        told = was.workload.model_dump_json().replace(str(home / "night.csv"), str(copy))
        assert is_.workload.model_dump_json() == told, was.label
    assert plan.examples()[0].workload.training.init == home / "night.csv"
