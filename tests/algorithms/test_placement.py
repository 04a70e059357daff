"""Law 1 for the methods that keep more than a network: the same bits on Ray, and stopped and resumed."""

from pathlib import Path

import pytest

from fedsim.engine.state import checkpoint

from .conftest import Simulate, assert_same_run, everything

FL_MRCM = ("fl_mrcm", "algorithm.lam=1")
DITTO = ("ditto", "training.participation=0.5", "model.norm=batch")
APFL = ("apfl", "training.participation=0.75", "model.norm=batch")
FEDALA = ("fedala", "algorithm.ala_lr=1e4")
TUNED = ("fedrep", "algorithm.tune_epochs=1", "training.participation=0.75")
AUTHORS = ("fl_mrcm", "algorithm.lam=1", "algorithm.latent=pooled", "algorithm.target=B")
DAMPED = ("fedmri", "algorithm.damping=0.5")
SCAFFOLD = ("scaffold", "training.participation=0.75")


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("what", [FL_MRCM, SCAFFOLD, DITTO, APFL, FEDALA, TUNED, AUTHORS, DAMPED])
def test_ray_gives_the_bits_of_one_process(simulate: Simulate, tmp_path: Path, what: tuple[str, ...]) -> None:
    packed = ("engine.backend=ray", "engine.clients_per_actor=2")
    assert_same_run(simulate(*what), simulate(*what, *packed, out=tmp_path / "ray"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        FL_MRCM,
        SCAFFOLD,
        ("feddyn", "training.participation=0.5"),
        DITTO,
        APFL,
        FEDALA,
        TUNED,
        DAMPED,
        ("frozen_encoder",),
        ("fedadam",),
        ("fedbn", "model.norm=batch"),
        ("fedavg", "model.norm=batch"),
    ],
    ids=lambda what: what[0],
)
def test_stopped_and_resumed_equals_uninterrupted(simulate: Simulate, tmp_path: Path, what: tuple[str, ...]) -> None:
    asked = iter([False, False, True])  # before round 1, 2 and 3
    simulate(*what, out=tmp_path / "part", stop=lambda: next(asked))
    assert checkpoint.complete_rounds(tmp_path / "part") == [1, 2]
    resumed = simulate(*what, out=tmp_path / "part", resume=True)
    assert_same_run(simulate(*what), resumed)


@pytest.mark.slow
def test_the_comparison_sees_what_methods_keep(simulate: Simulate) -> None:
    """The names under which state beyond parameters and optimizer is stored, and so compared above."""
    kept = {
        "scaffold": {"clients/B/state.control", "server/control"},
        "feddyn": {"clients/B/state.h", "server/h"},
        "fedadam": {"server/m", "server/v"},
        "apfl": {"clients/B/state.personal.shared", "clients/B/state.alpha"},
        "fedala": {"clients/B/state.own", "clients/B/state.weights"},
        "ditto": {"clients/B/state.personal.shared", "clients/B/state.personal.optimizer.shared.square_avg"},
        "fl_mrcm": {"clients/B/state.discriminator.C.weights",
                    "clients/B/state.discriminator.C.optimizer.weights.exp_avg_sq"},
    }  # fmt: skip
    for method, names in kept.items():
        assert names <= everything(simulate(method), 3).keys()
