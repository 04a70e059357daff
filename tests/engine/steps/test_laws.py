"""The laws of simulated time: what it must not change, and what must not change it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.schema import Workload
from tests.conftest import unplaced
from tests.engine.conftest import assert_same, tensors

Simulate = Callable[..., Run]
MODES = {
    "synchronous": "{compute: {samples_per_s: [1, 20]}, jitter: 0.3, dropout: 0.2}",
    "deadline": "{mode: deadline, deadline_s: 5, over_select: 1.5, compute: {samples_per_s: [1, 20]}, jitter: 0.3}",
    "buffered": "{mode: buffered, buffer: 2, concurrency: 4, compute: {samples_per_s: [1, 20]}, jitter: 0.3}",
    "asynchronous": "{mode: asynchronous, concurrency: 3, compute: {samples_per_s: [1, 20]}, jitter: 0.3}",
    "regions": "{compute: {samples_per_s: [1, 20]}, hierarchy: {regions: 2, rounds_per_sync: 2}}",
}
SMALL = (
    "model={domain: image, channels: 2, pools: 1}", "federation.matrix=[16, 16]", "federation.sites.1.matrix=[32, 32]",
    "training.rounds=6", "metrics.every=3", "engine.checkpoint_every=3",
)  # fmt: skip
TIMED = ["virtual_begin_s", "virtual_end_s", "staleness", "virtual_s"]


def keys(mode: str, *more: str) -> tuple[str, ...]:
    participation = ("training.participation=0.5",) if mode == "deadline" else ()
    return (*SMALL, f"time={MODES[mode]}", *participation, *more)


def assert_as_untimed(run: Run, whole: Run) -> None:
    """The same tensors and the same ledger but for the columns of simulated time."""
    assert tensors(run) == tensors(whole)
    for table in ("rounds", "clients", "evaluation"):
        ours, theirs = (unplaced(getattr(one, table)) for one in (run, whole))
        assert set(ours) - set(theirs) <= set(TIMED)
        pd.testing.assert_frame_equal(ours[list(theirs)], theirs, check_exact=True)


@pytest.mark.parametrize(
    "time",
    [
        "{compute: {samples_per_s: [1, 20]}, jitter: 0.3}",
        "{mode: deadline, deadline_s: 1e6, compute: {samples_per_s: [1, 20]}}",
        "{mode: buffered, buffer: 4, concurrency: 4, latency_s: 1}",
        "{hierarchy: {regions: 1, rounds_per_sync: 2}, latency_s: 1}",
    ],
    ids=["synchronous", "a deadline nobody misses", "equal speeds and a full buffer", "one region"],
)
def test_is_the_run_without_simulated_time(simulate: Simulate, whole: Run, time: str) -> None:
    assert_as_untimed(simulate(f"time={time}"), whole)


@pytest.fixture
def again(workload: Callable[..., Workload], tmp_path: Path) -> Callable[..., Run]:
    """Runs a workload that is stopped after each of some rounds, and resumed."""

    def again(stops: Iterator[bool], *overrides: str) -> Run:
        for _ in range(9):
            found = run(workload(*overrides), tmp_path / "again", resume=True, stop=lambda: next(stops, False))
            if (found.path / "evaluation.parquet").exists():
                return found
        raise AssertionError("never ends")

    return again


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_or_not(simulate: Simulate, again: Callable[..., Run], mode: str) -> None:
    """Also between the rounds of which some clients were trained ahead."""
    undisturbed = simulate(*keys(mode))
    stopped = again(iter([False, True, False, False, True]), *keys(mode, "engine.keep_last=9"))
    last = "checkpoints/round-0006/"
    ours, theirs = ({k: v for k, v in tensors(one).items() if k.startswith(last)} for one in (stopped, undisturbed))
    assert ours
    assert ours == theirs
    for table in ("rounds", "clients", "evaluation"):
        one, other = (unplaced(getattr(r, table)) for r in (stopped, undisturbed))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_training_ahead_changes_nothing(simulate: Simulate) -> None:
    """With a checkpoint after every round nothing is trained ahead."""
    for mode in ("buffered", "asynchronous"):
        ahead, not_ahead = simulate(*keys(mode)), simulate(*keys(mode, "engine.checkpoint_every=1"))
        last = {k: v for k, v in tensors(not_ahead).items() if k in tensors(ahead)}
        assert last == tensors(ahead)
        pd.testing.assert_frame_equal(unplaced(ahead.clients), unplaced(not_ahead.clients), check_exact=True)


def test_late_clients_do_not_train(simulate: Simulate) -> None:
    run = simulate(*keys("deadline"))
    rows = run.clients[run.clients["virtual_end_s"].notna()]
    late = rows[rows["outcome"] == "late"]
    assert len(late)
    assert (late[["steps", "uplink_bytes", "weight"]] == 0).all(axis=None)
    trained = rows[rows["outcome"] == "trained"]
    assert (trained.groupby("round")["weight"].sum().round(12) == 1).all()
    ends = run.rounds.set_index("round")["virtual_s"]
    assert ends.is_monotonic_increasing
    assert (trained["virtual_end_s"] <= trained["round"].map(ends)).all()


def test_the_ledger_tells_staleness(simulate: Simulate) -> None:
    run = simulate(*keys("asynchronous"))
    trained = run.clients[run.clients["outcome"] == "trained"]
    assert (trained.groupby("round").size() == 1).all()
    assert trained["staleness"].max() > 0
    assert run.rounds["virtual_s"].tolist() == trained["virtual_end_s"].tolist()
    assert "virtual_s" not in simulate(*SMALL, "training.rounds=1").rounds


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "transfer", "fl_mrcm"])
@pytest.mark.parametrize("mode", ["buffered", "asynchronous", "regions"])
def test_methods_in_lockstep_are_refused(workload: Callable[..., Workload], name: str, mode: str) -> None:
    with pytest.raises(Exception, match=f"time: {name} needs all clients of a round to begin with one state"):
        workload(f"algorithm.name={name}", f"time={MODES[mode]}")
    workload(f"algorithm.name={name}", f"time={MODES['synchronous']}")


METHODS = [
    "{name: fedmri, beta: 1, negatives: exact, own: false}", "{name: fedmri, beta: 1, negatives: moments}", "fedavg",
    "fedprox", "fedper", "lg_fedavg", "fedbn", "fedrep", "ditto", "single", "fedadam", "fedyogi", "fedadagrad",
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_other_method_runs(simulate: Simulate, method: str) -> None:
    key = f"algorithm={method}" if method.startswith("{") else f"algorithm.name={method}"
    for mode in ("buffered", "asynchronous"):
        found = simulate(*keys(mode, key, "training.rounds=3", "model.norm=batch"))
        assert found.clients["loss"].notna().any()


def test_fused_clients_give_the_same_ledger(simulate: Simulate) -> None:
    alone, fused = (simulate(*keys("buffered", f"training.fuse={fuse}")) for fuse in (1, 2))
    columns = ["round", "client", "outcome", "virtual_begin_s", "virtual_end_s", "staleness"]
    pd.testing.assert_frame_equal(alone.clients[columns], fused.clients[columns])
    assert fused.clients["loss"].tolist() == pytest.approx(alone.clients["loss"].tolist(), rel=1e-3, nan_ok=True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_on_two_actors(simulate: Simulate) -> None:
    serial, spread = (simulate(*keys("buffered", f"engine.backend={one}")) for one in ("serial", "ray"))
    assert_same(serial, spread)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "how",
    [
        ["engine.cores=1"],
        ["engine.clients_per_actor=auto"],
        ["faults=[{kind: kill, round: 2, client: B}, {kind: kill, round: 5, client: A.1}]"],
    ],
    ids=["one actor at a time", "packed", "killed"],
)
def test_wherever_clients_are(simulate: Simulate, mode: str, how: list[str]) -> None:
    assert_same(simulate(*keys(mode)), simulate(*keys(mode, "engine.backend=ray", *how)))
