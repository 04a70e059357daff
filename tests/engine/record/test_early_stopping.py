"""A run ends when validation no longer improves: a function of the rounds so far, whoever asks and whenever."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.algorithms.stopping import EarlyStopping
from fedsim.cli.watch_run import WatchedRun
from fedsim.core.errors import InputError
from fedsim.engine.record.ending import is_trained, stopped_early
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state import checkpoint
from fedsim.workload.schema import Workload
from tests.engine.conftest import assert_same

Simulate = Callable[..., Run]

SOON = ("training.early_stopping={patience: 2, min_delta: 99}", "training.rounds=6", "algorithm.name=fedavg")


@pytest.mark.parametrize(
    ("rule", "values", "stops"),
    [
        (EarlyStopping(patience=2), [1, 2, 3, 4], None),
        (EarlyStopping(patience=2), [1, 2, 2, 2, 9], 4),
        (EarlyStopping(patience=2), [3, 2, 4, 1, 1], 5),
        (EarlyStopping(patience=1), [-5, -6], 2),
        (EarlyStopping(patience=2, min_delta=0.5), [1, 1.4, 1.5], 3),
        (EarlyStopping(patience=2, min_delta=0.5), [1, 1.4, 1.6], None),
        (EarlyStopping(patience=2, metric="nmse"), [0.3, 0.2, 0.25, 0.2], 4),
        (EarlyStopping(patience=3), [math.nan, 2, math.nan, 1, math.nan, 1], 6),
        (EarlyStopping(patience=3), [math.nan] * 9, None),
    ],
)
def test_it_stops_after_so_many_rounds_without_a_better_one(
    rule: EarlyStopping, values: list[float], stops: int | None
) -> None:
    verdicts = [rule.verdict(enumerate(values[:count], start=1)) for count in range(1, len(values) + 1)]
    first = next((count for count, verdict in enumerate(verdicts, start=1) if verdict), None)
    assert first == stops
    assert first is None or f"stopped early at round {first}" in verdicts[first - 1]


@pytest.mark.slow
def test_a_run_stops_says_so_and_is_done(simulate: Simulate, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="fedsim")
    run = simulate(*SOON, "engine.checkpoint_every=2", out=tmp_path / "run")
    assert list(run.rounds["round"]) == [1, 2, 3]
    assert "stopped early at round 3: validation psnr has not improved by more than 99 since round 1" in caplog.text
    assert stopped_early(run.workload, run.rounds) == checkpoint.read_state(run.path, 3)["stopped_early"]
    assert is_trained(run)
    watched = WatchedRun(run.path)
    watched.look()
    assert watched.done
    assert watched.news()[-1].startswith("stopped early at round 3")
    assert_same(run, simulate(*SOON, "engine.checkpoint_every=2", out=run.path, resume=True))


@pytest.mark.slow
def test_an_interrupted_run_stops_where_an_uninterrupted_one_does(simulate: Simulate, tmp_path: Path) -> None:
    whole = simulate(*SOON)
    asked = iter([False, False, True])
    part = simulate(*SOON, out=tmp_path / "part", stop=lambda: next(asked))
    assert not is_trained(part)
    assert_same(whole, simulate(*SOON, out=tmp_path / "part", resume=True))


@pytest.mark.slow
def test_more_patience_on_resume_equals_having_had_it(simulate: Simulate, tmp_path: Path) -> None:
    patient = "training.early_stopping.patience=3"
    whole = simulate(*SOON, patient)
    simulate(*SOON, out=tmp_path / "part")
    (tmp_path / "part" / "evaluation.parquet").unlink()
    assert_same(whole, simulate(*SOON, patient, out=tmp_path / "part", resume=True))
    for less in ("training.early_stopping.patience=2", "training.early_stopping.min_delta=1"):
        with pytest.raises(InputError, match="its patience may grow, or it may be null"):
            simulate(*SOON, patient, less, out=tmp_path / "part", resume=True)


@pytest.mark.long
def test_the_placement_changes_nothing(simulate: Simulate, ray_session: None) -> None:
    keys = (*SOON, "federation.partition={kind: quantity, alpha: 0.5}")
    assert_same(simulate(*keys), simulate(*keys, "engine.backend=ray", "engine.clients_per_actor=3"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("metrics.every=0", "needs validation; set metrics.every to 1 or more"),
        ("federation.split={train: 0.5, val: 0, test: 0.5}", "no site has validation data"),
        ("training.early_stopping.patience=0", "training.early_stopping.patience: .*got 0"),
        ("training.early_stopping.metric=loss", "training.early_stopping.metric"),
        ("training.early_stopping.min_delta=-1", "training.early_stopping.min_delta: .*got -1"),
    ],
)
def test_what_could_never_stop_is_refused(workload: Callable[..., Workload], key: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        workload(*SOON, key)
