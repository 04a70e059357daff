"""What goes wrong with clients, on purpose, and what the engine makes of it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from fedsim.algorithms.catalogue import ALGORITHMS
from fedsim.core.errors import ClientError, InputError, RunError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation
from fedsim.engine.state import checkpoint
from fedsim.workload.faults import CHECKPOINT, Fault, due
from fedsim.workload.schema import Workload
from tests.engine.conftest import assert_same, load, noted, tensors

Simulate = Callable[..., Run]
RAY = ("engine.backend=ray", "engine.clients_per_actor=2")
DROP = "engine.on_client_error=drop"


def faults(*listed: str) -> str:
    return f"faults=[{', '.join(listed)}]"


# The section


@pytest.mark.parametrize(
    "keys",
    [{"kind": "raise", "phase": CHECKPOINT}, {"kind": "disk_full", "phase": "train"}, {"kind": "explode"},
     {"kind": "nan", "probability": 0}, {"kind": "delay", "seconds": -1}, {"kind": "kill", "round": 0}],
)  # fmt: skip
def test_impossible_faults_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(keys)


def test_every_kind_is_one_of_the_machine_or_of_the_client() -> None:
    once = {k for k in get_args(Fault.model_fields["kind"].annotation) if Fault.model_validate({"kind": k}).once}
    assert once == {"kill", "delay", "disk_full"}
    assert Fault(kind="corrupt", phase=CHECKPOINT).once


def test_where_a_chance_strikes_depends_on_seed_client_and_round_alone() -> None:
    listed, names = [Fault(kind="raise", probability=0.3)], [f"C{i}" for i in range(200)]
    struck = [{one.client for one in due(listed, 5, order, 2, "train")} for order in (names, names[::-1], names[:100])]
    assert struck[0] == struck[1]
    assert struck[2] == struck[0] & set(names[:100])
    assert 30 < len(struck[0]) < 90, "about three in ten"
    assert struck[0] != {one.client for one in due(listed, 5, names, 3, "train")}
    assert struck[0] != {one.client for one in due(listed, 6, names, 2, "train")}


def test_a_corrupted_upload_differs_in_one_value() -> None:
    vector = np.linspace(1, 2, 11, dtype=np.float32)
    spoiled = Fault(kind="corrupt").spoil(vector)
    assert (spoiled != vector).nonzero()[0].tolist() == [5]
    assert np.isfinite(spoiled).all()
    assert np.isnan(Fault(kind="nan").spoil(vector)).sum() == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [("{kind: nan, client: Z}", "faults.0.client: 'Z' is not a client; A.1, A.2, B, C are"),
     ("{kind: nan, phase: align}", "faults.0.phase: must be one of checkpoint, train, not 'align'"),
     ("{kind: kill}", "faults: kill needs engine.backend=ray")],
)  # fmt: skip
def test_faults_of_nobody_are_refused(simulate: Simulate, tmp_path: Path, fault: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(faults(fault), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Clients that fail


@pytest.mark.usefixtures("ray_session")
def test_a_failing_client_ends_the_run_with_its_traceback(simulate: Simulate, tmp_path: Path) -> None:
    keys = (faults("{kind: raise, client: B, round: 2}"),)
    for more in ((), RAY):
        out = tmp_path / f"run-{len(more)}"
        with pytest.raises(ClientError, match=r"^client B, round 2, seed 3: InjectedError: .*fedsim debug") as failed:
            simulate(*keys, *more, out=out)
        assert "strike" in failed.value.trace
        assert failed.value.trace.startswith("Traceback")
        assert noted(Run(out)) == [(2, "B", "raised", "aborted")]
        assert Run(out).round("last") == 1
        with pytest.raises(ClientError, match="client B, round 2"):  # it would only repeat itself
            simulate(*keys, *more, out=out, resume=True)


@pytest.mark.parametrize("kind", [pytest.param("nan", marks=pytest.mark.long), "raise"])
@pytest.mark.usefixtures("ray_session")
def test_a_failing_client_is_left_out_and_stays_as_it_was(simulate: Simulate, kind: str) -> None:
    """Its private state is in place under an optimizer that works in place; nan comes after a whole training."""
    keys = (DROP, faults(f"{{kind: {kind}, client: B, round: 2}}"), "training.optimizer=adam")
    run = simulate(*keys)
    assert noted(run) == [(2, "B", "diverged" if kind == "nan" else "raised", "dropped")]
    before, after = load(run, 1, "clients/B"), load(run, 2, "clients/B")
    assert {key: value.tobytes() for key, value in before.items()} == {k: v.tobytes() for k, v in after.items()}
    assert (
        load(run, 1, "clients/C")["state.optimizer.local.step"]
        != load(run, 2, "clients/C")["state.optimizer.local.step"]
    )
    (said,) = pd.read_parquet(run.path / "failures.parquet")["message"]
    assert f"a fault of the workload (faults: kind {kind})" in said
    assert run.rounds["failed"].tolist() == [0, 1, 0]
    second = run.clients[run.clients["round"] == 2].set_index("client")
    assert second["outcome"].to_dict() == {"A.1": "trained", "A.2": "trained", "B": "dropped", "C": "trained"}
    assert second["weight"].to_dict() == pytest.approx({"A.1": 1 / 3, "A.2": 1 / 3, "B": 0, "C": 1 / 3})
    assert second.loc["B", "psnr"] > 0, "it is validated all the same"
    if kind == "nan":
        assert_same(run, simulate(*keys, *RAY))


@pytest.mark.slow
@pytest.mark.parametrize("method", [kind.model_fields["name"].default for kind in ALGORITHMS])
def test_every_method_goes_on_without_a_client(simulate: Simulate, method: str) -> None:
    struck = "{kind: raise, client: all, round: 1}" if method == "centralised" else "{kind: raise, client: B, round: 2}"
    keys = (f"algorithm.name={method}", DROP, faults(struck), "training.rounds=3", "metrics.every=0")
    if method == "centralised":
        with pytest.raises(RunError, match="round 1: every client has failed; all first: client all, round 1"):
            simulate(*keys)
        return
    run = simulate(*keys)
    assert noted(run) == [(2, "B", "raised", "dropped")]
    assert run.rounds["failed"].tolist() == [0, 1, 0]
    assert all(np.isfinite(value).all() for value in load(run, 3, "clients/B").values())


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["features", "align"])
def test_a_client_that_fails_in_a_phase_is_gone_for_the_rest_of_the_round(simulate: Simulate, phase: str) -> None:
    keys = ("algorithm.name=fl_mrcm", DROP, faults(f"{{kind: raise, client: B, round: 2, phase: {phase}}}"))
    run = simulate(*keys, "metrics.every=0")
    second = run.clients[run.clients["round"] == 2].set_index("client")
    assert second["outcome"].eq("dropped").to_dict() == {"A.1": False, "A.2": False, "B": True, "C": False}
    sent = second.loc["B", "uplink_bytes"]
    assert (sent > 0) == (phase == "align"), "it had sent its features"


# Lost processes


@pytest.mark.usefixtures("ray_session")
def test_killed_actors_are_replaced_and_nothing_is_lost(simulate: Simulate, whole: Run) -> None:
    struck = faults(
        "{kind: kill, client: B, round: 2}", "{kind: kill, client: C, round: 2}",
        "{kind: kill, client: A.1, round: 1, phase: checkpoint}", "{kind: delay, client: C, round: 3, seconds: 0.1}",
    )  # fmt: skip
    run = simulate(struck, *RAY)
    assert_same(whole, run)
    lost = [row[:2] for row in noted(run) if row[3] == "replayed"]
    assert (2, "B") in lost or (2, "C") in lost
    assert (1, "") in lost, "nobody was training when the checkpoint was written"


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "how",
    [
        "{kind: kill, client: B, round: 2}",
        "{kind: delay, client: B, round: 2, seconds: 60}",
    ],
)
def test_dropping_the_client_of_a_lost_process_is_dropping_a_client(
    simulate: Simulate, tmp_path: Path, how: str
) -> None:
    """The same bits as when the client itself fails in that round; and dropped again when the round is done again."""
    failing = simulate(DROP, faults("{kind: raise, client: B, round: 2}"))
    keys = (faults(how), *RAY, "engine.on_lost_process=drop", "engine.client_timeout_s=4")
    run = simulate(*keys, out=tmp_path / "run")
    assert_same(failing, run)
    assert (2, "B", "late" if "delay" in how else "lost", "dropped") in noted(run)
    shutil.rmtree(checkpoint.folder(run.path, 2))
    shutil.rmtree(checkpoint.folder(run.path, 3))
    (run.path / "evaluation.parquet").unlink()
    again = simulate(keys[0], *RAY, out=tmp_path / "run", resume=True)
    assert_same(failing, again)


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_there_is_an_end_to_replaying(simulate: Simulate, whole: Run, tmp_path: Path) -> None:
    struck = [f"{{kind: kill, client: {client}, round: 2}}" for client in ("A.1", "A.2", "B")]
    with pytest.raises(RunError, match=r"a process was lost: process \d+ on .*; continue with --resume"):
        simulate(faults(*struck), *RAY, "engine.retries=0", out=tmp_path / "run")
    assert [row[3] for row in noted(Run(tmp_path / "run"))][-1] == "aborted"
    assert_same(whole, simulate(faults(*struck), *RAY, out=tmp_path / "run", resume=True))


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_a_straggler_is_replayed_by_default(simulate: Simulate, whole: Run) -> None:
    struck = faults("{kind: delay, client: B, round: 2, seconds: 60}")
    run = simulate(struck, *RAY, "engine.client_timeout_s=4")
    assert_same(whole, run)
    assert (2, "B", "late", "replayed") in noted(run)


# One step again


@pytest.mark.slow
def test_a_step_again_is_the_step_of_the_run(
    simulate: Simulate, workload: Callable[..., Workload], tmp_path: Path
) -> None:
    for method in ("fedmri", "transfer", "fl_mrcm"):
        run = simulate(f"algorithm.name={method}", out=tmp_path / method)
        before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
        loss = run.clients.set_index(["round", "client"])["loss"]
        for round_, client in ((1, "C"), (3, "A.2")):
            with Simulation(workload(f"algorithm.name={method}"), run.path, resume=True) as simulation:
                row = simulation.debug(client, round_)
            assert row["loss"] == loss[round_, client]
        assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}


@pytest.mark.slow
def test_a_step_of_a_later_phase_meets_what_it_met_in_the_run(
    simulate: Simulate, workload: Callable[..., Workload], tmp_path: Path
) -> None:
    """Others that were dropped in a phase before or in this one, and corrupted uploads that come before it."""
    cases = {
        "fl_mrcm": (
            "{kind: raise, client: B, round: 2, phase: align}",
            "{kind: raise, client: C, round: 2, phase: features}",
        ),
        "transfer": ("{kind: corrupt, round: 2}", "{kind: nan, client: B, round: 2}"),
    }
    for method, struck in cases.items():
        keys = (f"algorithm.name={method}", DROP, faults(*struck))
        run = simulate(*keys, out=tmp_path / method)
        second = run.clients[(run.clients["round"] == 2) & (run.clients["outcome"] == "trained")]
        for client, loss in zip(second["client"], second["loss"], strict=True):
            with Simulation(workload(*keys), run.path, resume=True) as simulation:
                assert simulation.debug(client, 2)["loss"] == loss
        with (
            Simulation(workload(*keys), run.path, resume=True) as simulation,
            pytest.raises(ClientError, match="client B"),
        ):
            simulation.debug("B", 2)


@pytest.mark.slow
def test_a_failing_step_fails_again(simulate: Simulate, workload: Callable[..., Workload], tmp_path: Path) -> None:
    keys = (faults("{kind: raise, client: B, round: 2}"),)
    with pytest.raises(ClientError):
        simulate(*keys, out=tmp_path / "run")
    with Simulation(workload(*keys), tmp_path / "run", resume=True) as simulation:
        with pytest.raises(ClientError, match="client B, round 2, seed 3: InjectedError"):
            simulation.debug("B", 2)
        assert simulation.debug("C", 2)["steps"] > 0
        with pytest.raises(InputError, match="--round 9: needs the checkpoint before it; rounds that have one: 1, 2"):
            simulation.debug("B", 9)
        with pytest.raises(InputError, match=r"--client X: the run's clients are A\.1"):
            simulation.debug("X", 1)
    assert len(noted(Run(tmp_path / "run"))) == 1


@pytest.mark.slow
def test_dropped_runs_differ_from_whole_ones(simulate: Simulate, whole: Run) -> None:
    """So that the equalities above say something."""
    assert tensors(whole) != tensors(simulate(DROP, faults("{kind: raise, client: B, round: 2}")))
