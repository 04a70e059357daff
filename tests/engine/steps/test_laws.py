"""The laws of simulated time: what it must not change, and what must not change it."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedsim.core.errors import InputError
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.engine.rounds import Rounds
from fedsim.engine.simulation import Simulation, run
from fedsim.workload.reading import load_workload
from fedsim.workload.schema import Workload
from tests.conftest import Fedsim, unplaced
from tests.engine.conftest import assert_same, load, noted, tensors, written

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
    "training.rounds=7", "metrics.every=3", "engine.checkpoint_every=3",
)  # fmt: skip
AHEAD = ("buffered", "asynchronous")
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_moments_of_equal_speeds_are_those_of_rounds(simulate: Simulate, weighting: str) -> None:
    """Clients send one vector more, which a buffer without stale uploads does not need."""
    method = f"algorithm={{name: fedmri, beta: 1, negatives: moments, weighting: {weighting}}}"
    modes = ("null", "{mode: buffered, buffer: 4, concurrency: 4, latency_s: 1}")
    untimed, buffered = (simulate(*SMALL, method, f"time={mode}", "training.rounds=3") for mode in modes)
    assert tensors(buffered) == tensors(untimed)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Callable[[str], Run]:
    """The serial run of a mode."""
    folder = tmp_path_factory.mktemp("undisturbed")

    @functools.cache
    def undisturbed(mode: str) -> Run:
        return run(load_workload(written(folder, cache), keys(mode)), folder / mode)

    return undisturbed


def stopped(workload: Workload, out: Path, after: list[int]) -> tuple[Run, list[int]]:
    """A run that is asked to stop after some rounds, and resumed each time; and the rounds at which it stopped."""
    rounds, ends = [0], []
    for round_ in after:
        with Simulation(workload, out, resume=True) as simulation:
            assert not simulation.run(lambda: rounds[-1] >= round_, lambda row: rounds.append(row["round"]))  # noqa: B023
        ends.append(rounds[-1])
    return run(workload, out, resume=True), ends


def victims(run: Run) -> dict[int, str]:
    """A client that trains in round 2, and one that does in round 5."""
    trained = run.clients.query("outcome == 'trained'").groupby("round")["client"].last()
    return {round_: trained[round_] for round_ in (2, 5)}


def faults(kind: str, run: Run) -> str:
    """Faults that strike them."""
    struck = (f"{{kind: {kind}, round: {round_}, client: {client}}}" for round_, client in victims(run).items())
    return f"faults=[{', '.join(struck)}]"


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_interrupted_or_not_and_slow_or_not(
    workload: Callable[..., Workload], undisturbed: Callable[[str], Run], tmp_path: Path, mode: str
) -> None:
    """Also where some clients have been trained ahead, of rounds after the one that it is to stop at."""
    whole = undisturbed(mode)
    slowed = faults("delay, seconds: 0.2", whole)
    parts, ends = stopped(workload(*keys(mode), slowed), tmp_path / "run", [1, 4])
    assert ends == [1, 4] if mode not in AHEAD else 1 < ends[0] < 4 < ends[1] < 7
    assert noted(parts) == [(round_, client, "injected", "struck") for round_, client in victims(whole).items()]
    assert_same(whole, parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", [mode if mode == "buffered" else pytest.param(mode, marks=pytest.mark.long) for mode in MODES]
)
def test_ctrl_c_or_not(
    fedsim: Fedsim, cache: Path, undisturbed: Callable[[str], Run], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, mode: str,
) -> None:  # fmt: skip
    """The signal comes as round 2 begins, for which a client may have been trained by then."""
    file, play = written(tmp_path, cache), Rounds.play

    def pressed(self: Rounds, round_: int, until: int = 0) -> object:
        if round_ == 2:
            signal.raise_signal(signal.SIGINT)
        return play(self, round_, until)

    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "play", pressed)
        overrides = (part for key in keys(mode) for part in ("--set", key))
        status, _, err = fedsim("run", file, *overrides, "--out", tmp_path / "run")
    assert (status, "resume with: fedsim run" in err) == (130, True)
    assert Run(tmp_path / "run").round("last") < 7
    assert_same(undisturbed(mode), run(load_workload(file, keys(mode)), tmp_path / "run", resume=True))


@pytest.mark.slow
def test_training_ahead_changes_nothing(simulate: Simulate, undisturbed: Callable[[str], Run]) -> None:
    """With a checkpoint after every round nothing is trained ahead."""
    ahead, not_ahead = undisturbed("asynchronous"), simulate(*keys("asynchronous", "engine.checkpoint_every=1"))
    assert tensors(ahead).items() <= tensors(not_ahead).items()
    pd.testing.assert_frame_equal(unplaced(ahead.clients), unplaced(not_ahead.clients), check_exact=True)


def test_late_clients_do_not_train(undisturbed: Callable[[str], Run]) -> None:
    run = undisturbed("deadline")
    rows = run.clients[run.clients["virtual_end_s"].notna()]
    late, trained = rows[rows["outcome"] == "late"], rows[rows["outcome"] == "trained"]
    assert len(late)
    assert (late[["steps", "uplink_bytes", "weight"]] == 0).all(axis=None)
    received = trained.groupby("round")["downlink_bytes"].first()
    assert late["downlink_bytes"].tolist() == late["round"].map(received).tolist()
    assert (trained.groupby("round")["weight"].sum().round(12) == 1).all()
    ends = run.rounds.set_index("round")["virtual_s"]
    assert ends.is_monotonic_increasing
    assert (trained["virtual_end_s"] <= trained["round"].map(ends)).all()


def test_the_ledger_tells_staleness(undisturbed: Callable[[str], Run]) -> None:
    run = undisturbed("asynchronous")
    trained = run.clients[run.clients["outcome"] == "trained"]
    assert (trained.groupby("round").size() == 1).all()
    assert trained["staleness"].max() > 0
    assert run.rounds["virtual_s"].tolist() == trained["virtual_end_s"].tolist()


@pytest.mark.parametrize("mode", ["buffered", "asynchronous", "regions"])
def test_a_turn_is_repeated_alone(undisturbed: Callable[[str], Run], mode: str) -> None:
    """From the state of the server that it began with, which a checkpoint has."""
    run = undisturbed(mode)
    row = run.clients.query("round == 4 and outcome == 'trained'").iloc[-1]
    with Simulation(run.workload, run.path, resume=True, writes=False) as simulation:
        assert simulation.debug(row["client"], 4)["loss"] == row["loss"]
        with pytest.raises(InputError, match="--client nobody"):
            simulation.debug("nobody", 4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["synchronous", *AHEAD, "regions"])
def test_who_drops_out_has_used_time_and_received_the_model(simulate: Simulate, mode: str) -> None:
    """As it was when they began: the first one comes without negatives. They have not failed, and stay as they were."""
    method = "algorithm={name: fedmri, negatives: moments}"
    run = simulate(*keys(mode, method, "time.dropout=0.4", "metrics.every=0", "engine.checkpoint_every=1"))
    rows = run.clients.dropna(subset="staleness")
    received = rows.groupby(rows["round"] - rows["staleness"])["downlink_bytes"].unique().map(list)
    dropped = rows[rows["outcome"] == "dropped"]
    assert len(dropped)
    assert received.map(len).eq(1).all()
    assert len({size for (size,) in received}) > 1
    assert (dropped["virtual_begin_s"] < dropped["virtual_end_s"]).all()
    assert (dropped[["steps", "uplink_bytes", "weight"]] == 0).all(axis=None)
    assert (run.rounds["failed"] == 0).all()
    files = tensors(run)
    for row in rows[rows["round"] > 1].itertuples():
        ends = (f"checkpoints/round-{at:04d}/clients/{row.client}.safetensors" for at in (row.round - 1, row.round))
        before, after = (files[end] for end in ends)
        assert (before == after) == (row.outcome == "dropped")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["synchronous", "buffered"])
def test_who_joins_begins_as_all_did(
    simulate: Simulate, workload: Callable[..., Workload], tmp_path: Path, mode: str
) -> None:
    """Interrupted before that, or not."""
    joined = keys(mode, "time.dropout=0", "federation.sites.1.joins_round=3", "engine.checkpoint_every=1")
    whole, (parts, ends) = simulate(*joined), stopped(workload(*joined), tmp_path / "run", [2])
    assert ends == [2]
    assert_same(whole, parts)
    first = whole.clients.query("client == 'B' and outcome == 'trained'")["round"].min()
    assert first >= 3
    learner = make_learner(setup_of(whole.workload))
    fresh = learner.flat("local").by_name(learner.fresh_state()["local"])
    for round_ in range(1, 8):
        found = load(whole, round_, "clients/B")
        alike = all((found[name] == tensor.numpy()).all() for name, tensor in fresh.items())
        assert alike == (round_ < first)


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "transfer", "fl_mrcm"])
@pytest.mark.parametrize("mode", ["buffered", "asynchronous", "regions"])
def test_methods_in_lockstep_are_refused(workload: Callable[..., Workload], name: str, mode: str) -> None:
    with pytest.raises(InputError, match=f"time: {name} needs all clients of a round to begin with one state"):
        workload(f"algorithm.name={name}", f"time={MODES[mode]}")
    workload(f"algorithm.name={name}", f"time={MODES['synchronous']}")


METHODS = [
    "{name: fedmri, beta: 1, negatives: exact, own: false}", "{name: fedmri, beta: 1, negatives: moments}",
    "{name: fedadam}", "{name: ditto}",
    *(pytest.param(f"{{name: {name}}}", marks=pytest.mark.long) for name in (
        "fedavg", "fedprox", "fedper", "lg_fedavg", "fedbn", "fedrep", "frozen_encoder", "single", "fedyogi",
        "fedadagrad", "apfl", "fedala",
    )),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["buffered", pytest.param("asynchronous", marks=pytest.mark.long)])
def test_every_other_method_runs(simulate: Simulate, method: str, mode: str) -> None:
    found = simulate(*keys(mode, f"algorithm={method}", "training.rounds=3", "model.norm=batch"))
    assert found.clients.query("outcome == 'trained'")["loss"].notna().all()


@pytest.mark.slow
def test_fused_clients_give_the_same_ledger(simulate: Simulate, undisturbed: Callable[[str], Run]) -> None:
    alone, fused = undisturbed("buffered"), simulate(*keys("buffered", "training.fuse=2"))
    columns = ["round", "client", "outcome", "virtual_begin_s", "virtual_end_s", "staleness"]
    pd.testing.assert_frame_equal(alone.clients[columns], fused.clients[columns])
    assert fused.clients["loss"].tolist() == pytest.approx(alone.clients["loss"].tolist(), rel=1e-3, nan_ok=True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_on_two_actors(simulate: Simulate, undisturbed: Callable[[str], Run]) -> None:
    assert_same(undisturbed("buffered"), simulate(*keys("buffered", "engine.backend=ray")))


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "how", ["engine.cores=1", "engine.clients_per_actor=auto", "kill"], ids=["one actor at a time", "packed", "killed"]
)
def test_wherever_clients_are(simulate: Simulate, undisturbed: Callable[[str], Run], mode: str, how: str) -> None:
    whole = undisturbed(mode)
    found = simulate(*keys(mode, "engine.backend=ray", faults(how, whole) if how == "kill" else how))
    assert_same(whole, found)
    if how == "kill":
        failures = noted(found)
        assert {row[:2] for row in failures if row[3] == "struck"} == set(victims(whole).items())
        assert [row[3] for row in failures].count("replayed") == 2
