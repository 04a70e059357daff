"""Law 1: the same workload gives the same bits whatever the placement, interrupted or not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state import checkpoint

from .conftest import assert_same, tensors

Simulate = Callable[..., Run]


@pytest.mark.usefixtures("ray_session")
def test_serial_ray_ray_again_and_packed_give_the_same_bits(simulate: Simulate, whole: Run) -> None:
    for clients_per_actor in (1, 3, 3):
        assert_same(whole, simulate("engine.backend=ray", f"engine.clients_per_actor={clients_per_actor}"))


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("method", ["fedavg", "single"])
def test_other_methods_give_the_same_bits(simulate: Simulate, method: str) -> None:
    keys = (f"algorithm.name={method}", "training.rounds=2")
    assert_same(simulate(*keys), simulate(*keys, "engine.backend=ray", "engine.clients_per_actor=2"))


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_moments_of_negatives_do_not_depend_on_placement(simulate: Simulate) -> None:
    keys = ("algorithm.exact_up_to=2", "algorithm.own=false", "algorithm.beta_scaling=clients")
    keys += ("algorithm.weighting=samples", "training.participation=0.75")
    serial = simulate(*keys)
    assert serial.workload.algorithm.model_dump()["negatives"] == "moments", "auto is decided, and written down"
    assert serial.clients["contrastive_ratio"].notna().any()
    assert_same(serial, simulate(*keys, "engine.backend=ray", "engine.clients_per_actor=2"))


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_partial_participation_does_not_depend_on_placement(simulate: Simulate) -> None:
    overrides = ("training.participation=0.5", "algorithm.weighting=samples")
    serial = simulate(*overrides)
    assert_same(serial, simulate(*overrides, "engine.backend=ray", "engine.clients_per_actor=2"))
    trained = serial.clients[serial.clients["weight"] > 0]
    assert (trained.groupby("round").size() == 2).all()
    assert trained.groupby("round")["client"].agg(tuple).nunique() > 1


@pytest.mark.slow
def test_a_seed_decides_everything(simulate: Simulate) -> None:
    one, other = simulate("training.rounds=1"), simulate("training.rounds=1", "seed=4")
    assert tensors(one) != tensors(other)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_stopped_and_resumed_equals_uninterrupted(simulate: Simulate, tmp_path: Path, every: int) -> None:
    keys = ("training.rounds=4", f"engine.checkpoint_every={every}", "engine.keep_last=2")
    whole = simulate(*keys)
    asked = iter([False, False, False, True])  # before round 1, 2, 3 and 4
    simulate(*keys, out=tmp_path / "part", stop=lambda: next(asked))
    assert checkpoint.complete_rounds(tmp_path / "part")[-1] == 3
    assert_same(whole, simulate(*keys, out=tmp_path / "part", resume=True))


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 1, 2])
def test_more_rounds_on_resume_equals_having_asked_for_them(simulate: Simulate, tmp_path: Path, every: int) -> None:
    keys = (f"engine.checkpoint_every={every}", "engine.keep_last=1", "metrics.every=2")
    whole = simulate(*keys, "training.rounds=4")
    simulate(*keys, "training.rounds=3", out=tmp_path / "part")
    (tmp_path / "part" / "evaluation.parquet").unlink()
    longer = simulate(*keys, "training.rounds=4", out=tmp_path / "part", resume=True)
    assert_same(whole, longer)


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(simulate: Simulate, tmp_path: Path) -> None:
    first = simulate("training.rounds=2", out=tmp_path / "run")
    before = tensors(first)
    assert tensors(simulate("training.rounds=2", out=tmp_path / "run", resume=True)) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [("training.lr=0.5", "training.lr"), ("seed=9", "seed"), ("training.rounds=1", "training.rounds"),
     ("federation.sites.0.mask.acceleration=4", "federation.sites.0.mask.acceleration"),
     ("training.precision=bfloat16", "training.precision"), ("training.fuse=2", "training.fuse")],
)  # fmt: skip
def test_resume_refuses_another_workload(simulate: Simulate, tmp_path: Path, change: str, named: str) -> None:
    simulate("training.rounds=2", out=tmp_path / "run")
    with pytest.raises(InputError, match=f"^{named}: was"):
        simulate("training.rounds=2", change, out=tmp_path / "run", resume=True)


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_without_a_checkpoint_a_run_that_lost_an_actor_starts_over(simulate: Simulate) -> None:
    keys = ("engine.checkpoint_every=0",)
    struck = "faults=[{kind: kill, client: B, round: 2}]"
    placed = ("engine.backend=ray", "engine.clients_per_actor=2")
    assert_same(simulate(*keys), simulate(*keys, struck, *placed))
