"""The section `time`: what it takes, what it refuses, and the weights of late uploads."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from fedsim.workload.time import Speed, Staleness, draw_speed

TIMED = """
name: timed
federation:
  sites:
    - {name: A, source: &images {format: phantom}}
    - {name: B, source: *images}
    - {name: C, source: *images}
    - {name: U, source: *images, unseen: true}
algorithm: {name: fedavg}
training: {rounds: 5}
time: {compute: {samples_per_s: 10}, deadline_s: 60, buffer: 2}
"""
Load = Callable[..., Workload]
SITE = "federation.sites.0"
SPEED = "must be a number from 1e-9 to 1e12, [low, high], or {lognormal: {median: like a number, sigma: 0 to 10}}, not "
BAD = [
    ("time=3", "time: must have keys"),
    ("time={}", "time: no turn would take any; set time.compute.samples_per_s"),
    ("time={latency_s: 0}", "time: no turn would take any"),
    (
        ("time={mode: asynchronous}", f"{SITE}.time.latency_s=1"),
        "time: turns of site B would take none, and the server would step with those alone; set time.compute",
    ),
    ("time.speed=3", "time.speed: unknown key"),
    ("time.mode=async", "time.mode: "),
    ("time.mode=null", "time.mode: "),
    ("time.compute=10", "time.compute: must have keys"),
    ("time.compute={}", "time.compute.samples_per_s: is required"),
    ("time.compute.samples_per_s=fast", SPEED),
    ("time.compute.samples_per_s=0", SPEED),
    ("time.compute.samples_per_s=-3", SPEED),
    ("time.compute.samples_per_s=.nan", SPEED),
    ("time.compute.samples_per_s=.inf", SPEED),
    ("time.compute.samples_per_s=true", SPEED),
    ("time.compute.samples_per_s=1e-300", SPEED),
    (f"time.compute.samples_per_s={'9' * 60}", SPEED),
    ("time.compute.samples_per_s=[]", SPEED),
    ("time.compute.samples_per_s=[1, 2, 3]", SPEED),
    ("time.compute.samples_per_s=[20, 3]", SPEED),
    ("time.compute.samples_per_s=[0, 3]", SPEED),
    ("time.compute.samples_per_s={normal: {mean: 3}}", SPEED),
    ("time.compute.samples_per_s={lognormal: {median: 3}}", SPEED),
    ("time.compute.samples_per_s={lognormal: {median: -1, sigma: 1}}", SPEED),
    ("time.compute.samples_per_s={lognormal: {median: 1, sigma: -1}}", SPEED),
    ("time.compute.samples_per_s={lognormal: {median: 1, sigma: 1, mean: 2}}", SPEED),
    ("time.uplink_mbps=0", "time.uplink_mbps: " + SPEED),
    ("time.downlink_mbps=[9, 1]", "time.downlink_mbps: " + SPEED),
    ("time.latency_s=-1", "time.latency_s: "),
    ("time.jitter=-0.1", "time.jitter: "),
    ("time.jitter=11", "time.jitter: "),
    ("time.dropout=1", "time.dropout: "),
    ("time.dropout=-0.5", "time.dropout: "),
    ("time.available.share=0", "time.available.share: "),
    ("time.available.share=1.5", "time.available.share: "),
    ("time.available.share=[0.9, 0.3]", "share: [0.9, 0.3] must be [low, high] with low <= high"),
    ("time.available.share=[0, 0.3]", "time.available.share"),
    ("time.available.period_h=0", "time.available.period_h: "),
    ("time.available.period_h=1e-9", "time.available.period_h: "),
    ("time.available={period_h: 12}", "period_h: says nothing without a share of it; set share, too"),
    (f"{SITE}.time={{available: {{period_h: 12}}}}", "period_h: says nothing without a share of it"),
    ("time.available={trace: t.csv, share: 0.5}", "trace: says when clients are available, and share does too"),
    ("time.available.trace=t.txt", "t.txt: must be a .csv or .parquet file"),
    ("time.available=always", "time.available: must have keys"),
    (("time.mode=deadline", "time.deadline_s=null"), "deadline_s: mode deadline needs it"),
    ("time.deadline_s=0", "time.deadline_s: "),
    ("time.deadline_s=-5", "time.deadline_s: "),
    ("time.over_select=0.5", "time.over_select: "),
    (("time.mode=buffered", "time.buffer=null"), "buffer: mode buffered needs it"),
    ("time.buffer=0", "time.buffer: "),
    ("time.buffer=1.5", "time.buffer: must be a whole number"),
    (("time.mode=buffered", "time.buffer=4"), "time.buffer: 4 uploads never wait together with 3 clients at work"),
    (("time.mode=buffered", "time.concurrency=1"), "time.buffer: 2 uploads never wait together with 1 clients"),
    (("time.mode=asynchronous", "time.concurrency=4"), "time.concurrency: 4 cannot be at work at once, of 3 clients"),
    ("time.concurrency=0", "time.concurrency: "),
    (("time.mode=buffered", "training.sampler=fixed"), "training.sampler: fixed would draw the same clients"),
    (("time.mode=asynchronous", "training.sampler=fixed"), "training.sampler: fixed would draw the same clients"),
    (("training.sampler=fixed", f"{SITE}.leaves_round=2"), "training.sampler: fixed draws the same clients in every"),
    ("time.staleness.kind=linear", "time.staleness.kind: "),
    ("time.staleness.power=-1", "time.staleness.power: "),
    ("time.staleness.slope=-1", "time.staleness.slope: "),
    ("time.staleness.after=-1", "time.staleness.after: "),
    ("time.mixing=0", "time.mixing: "),
    ("time.mixing=1.2", "time.mixing: "),
    ("time.hierarchy={}", "time.hierarchy.regions: is required"),
    ("time.hierarchy.regions=0", "time.hierarchy.regions: "),
    ("time.hierarchy.regions=4", "time.hierarchy.regions: 4 of 3 clients would be empty"),
    ("time.hierarchy={regions: 2, rounds_per_sync: 0}", "time.hierarchy.rounds_per_sync: "),
    (("time.mode=buffered", "time.hierarchy={regions: 2}"), "hierarchy: is for mode synchronous, not buffered"),
    (f"{SITE}.time.mode=deadline", f"{SITE}.time.mode: unknown key"),
    (f"{SITE}.time.compute.samples_per_s=0", SPEED),
    (f"{SITE}.time.available.trace=t.csv", "trace: unknown key"),
    (f"{SITE}.joins_round=0", f"{SITE}.joins_round: "),
    ((f"{SITE}.joins_round=4", f"{SITE}.leaves_round=3"), "leaves_round: 3 is before joins_round=4"),
    (("time=null", f"{SITE}.joins_round=2"), "site A: time, joins_round, leaves_round: need the section time"),
    ("federation.sites.3.joins_round=2", "an unseen site takes no part"),
    (tuple(f"federation.sites.{site}.joins_round=2" for site in range(3)), "leave no site for round 1"),
    (tuple(f"federation.sites.{site}.leaves_round=4" for site in range(3)), "leave no site for round 5"),
    (("algorithm={name: centralised}", f"{SITE}.leaves_round=4"), "centralised holds all sites in one client"),
]  # fmt: skip


@pytest.fixture
def load(tmp_path: Path) -> Load:
    (tmp_path / "timed.yaml").write_text(TIMED)
    return lambda *overrides: load_workload(tmp_path / "timed.yaml", overrides)


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=lambda case: ascii(case)[:70])
def test_a_bad_section_is_refused_in_one_line(load: Load, overrides: str | tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as refused:
        load(*([overrides] if isinstance(overrides, str) else overrides))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_the_section_there_is_no_time(load: Load) -> None:
    assert load("time=null").time is None
    assert "time" not in load("time=null").model_dump(exclude_none=True)


def test_a_workload_is_written_as_it_was_read(load: Load, tmp_path: Path) -> None:
    keys = ("{lognormal: {median: 5, sigma: 0.5}}", "[20, 400]", "7")
    read = load(*(f"{SITE}.time.{key}={value}" for key, value in zip(
        ("compute.samples_per_s", "uplink_mbps", "downlink_mbps"), keys, strict=True
    )), "time.available={trace: t.csv, period_h: 24}", "federation.sites.1.joins_round=2")  # fmt: skip
    assert read.time is not None
    assert read.time.available.trace == Path.cwd() / "t.csv", "a file that is nowhere is named as if it were here"
    (tmp_path / "again.yaml").write_text(write_yaml(read.model_dump(mode="json", exclude_none=True)))
    assert load_workload(tmp_path / "again.yaml") == read


def test_a_site_overrides_some_keys(load: Load) -> None:
    read = load(f"{SITE}.time={{compute: {{samples_per_s: 3}}, latency_s: 2}}", "time.latency_s=1")
    assert read.time is not None
    assert [read.time.of_site(site.time).latency_s for site in read.federation.sites] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("keys", "factors"),
    [
        ({"kind": "constant"}, [1, 1, 1, 1]),
        ({}, [1, 2**-0.5, 3**-0.5, 4**-0.5]),  # as in FedBuff
        ({"kind": "polynomial", "power": 2}, [1, 1 / 4, 1 / 9, 1 / 16]),
        ({"kind": "hinge", "slope": 3, "after": 1}, [1, 1, 1 / 4, 1 / 7]),
    ],
)
def test_weights_of_late_uploads(keys: dict[str, object], factors: list[float]) -> None:
    staleness = Staleness.model_validate(keys)
    assert [staleness.factor(tau) for tau in range(4)] == pytest.approx(factors)


def test_speeds_are_drawn_as_they_say() -> None:
    assert draw_speed(3.0, 0.5, 0.5) == 3
    assert [draw_speed((20.0, 500.0), uniform, 9) for uniform in (0, 0.5, 1)] == pytest.approx([20, 100, 500])
    lognormal: Speed = {"lognormal": {"median": 50.0, "sigma": 0.5}}
    drawn = [draw_speed(lognormal, 9, normal) for normal in (-1, 0, 2)]
    assert drawn == pytest.approx([50 * math.exp(-0.5), 50, 50 * math.e])
