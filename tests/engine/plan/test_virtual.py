"""A plan says what a run will be in simulated time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.engine.federation import assemble
from fedsim.engine.host.training import make_learner
from fedsim.engine.plan import virtual
from fedsim.engine.plan.virtual import Virtual, foresee
from fedsim.engine.record.run_directory import setup_of
from fedsim.workload.reading import load_workload
from tests.engine.plans import planned

Fedsim = Callable[..., tuple[int, str, str]]
SIX = """
name: six
federation:
  cache: {cache}
  matrix: [32, 32]
  split: {{train: 0.5, val: 0.25, test: 0.25}}
  sites:
    - {{name: F, count: 5, source: {{format: phantom, subjects: 4, slices: 5, size: 32}}}}
    - {{name: S, source: {{format: phantom, subjects: 4, slices: 5, size: 32}},
        time: {{compute: {{samples_per_s: 1}}}}}}
model: {{channels: 2, pools: 1}}
algorithm: {{name: fedavg}}
training: {{rounds: 10, batch_size: 4}}
engine: {{backend: serial}}
time: {{compute: {{samples_per_s: 10}}}}
"""


@pytest.fixture
def file(cache: Path, tmp_path: Path) -> Path:
    (tmp_path / "six.yaml").write_text(SIX.format(cache=cache))
    return tmp_path / "six.yaml"


def foreseen(file: Path, *keys: str) -> Virtual:
    workload = load_workload(file, keys).settled()
    return foresee(workload, assemble(workload).clients, make_learner(setup_of(workload)))


def test_synchronous_rounds_by_hand(fedsim: Fedsim, file: Path) -> None:
    """Five clients work 1 s and one works 10 s: 15 s of work in each of ten rounds of 10 s."""
    status, out, _ = fedsim("plan", file)
    assert status == 0
    for said in ("in simulated time", "synchronous", "1 min 40 s", "1.5 on average", "100 % trained"):
        assert said in out
    assert "staleness" not in out


def test_late_clients_by_hand(file: Path) -> None:
    """One of six is late; rounds take 2 s, in which five work 1 s and one 2 s."""
    found = foreseen(file, "time.mode=deadline", "time.deadline_s=2")
    assert (found.seconds, found.at_work, found.stalest) == (20, 3.5, 0)
    assert found.shares == {"trained": 5 / 6, "late": 1 / 6}


def test_staleness_by_hand(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow one enters step 11, and began before the first; the 54 others of eleven steps are fresh."""
    keys = ("time.mode=buffered", "time.buffer=5", "training.rounds=11")
    found = foreseen(file, *keys)
    assert (found.rounds, found.seconds, found.stalest) == (11, 11, 10)
    assert found.staleness == pytest.approx(10 / 55)
    monkeypatch.setattr(virtual, "_MOST", 15)
    found = foreseen(file, *keys)
    assert (found.rounds, found.seconds, found.stalest) == (3, 11, 0)


def test_a_trace_is_refused_before_a_client_is_timed(fedsim: Fedsim, file: Path) -> None:
    (file.parent / "t.csv").write_text("client,from_s,to_s\nZ,0,1\n")
    status, _, err = fedsim("plan", file, "--set", "time.available.trace=t.csv")
    assert status == 2
    assert err.startswith("fedsim: time.available.trace: ")
    assert err.count("\n") == 1


def test_a_round_of_a_plan_is_a_buffer(file: Path) -> None:
    """Of six clients at work, five make a step; of a thousand registered, those at work stand for all."""
    assert planned(load_workload(file, ("time.mode=buffered", "time.buffer=5"))).cohort == 5
    many = ("federation.sites.0.count=1000", "time.mode=buffered", "time.buffer=5", "time.concurrency=8")
    plan = planned(load_workload(file, many))
    assert (plan.cohort, plan.registered) == (5, 1001)
    assert 8 <= len(plan.clients) <= 10
