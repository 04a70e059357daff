"""Methods that mean the same must give the same bits, through the whole engine: tensors, losses, metrics."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.lg_fedavg import LGFedAvg
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.models.reconstruction import UNetModel
from fedsim.workload.schema import Workload

from .conftest import Simulate, assert_equal, assert_same_run, assert_same_tables, clients, differ, load, networks

SHARED_ENCODER = """
from fedsim.algorithms.base import Algorithm

class SharedEncoder(Algorithm):
    name: str = "shared_encoder:SharedEncoder"

    def shares(self, parameter):
        return parameter.startswith(("image.encoder.", "kspace.encoder."))
"""
ROUNDS = (1, 2, 3)
HALF = "training.participation=0.5"
ADVERSARIAL = [
    *("discriminator_loss", "discriminator_accuracy"),
    *("private_bytes", "uplink_bytes", "downlink_bytes", "train_seconds"),
]


def assert_same_networks(one: Run, other: Run) -> None:
    """Every client's network after every round, and everything measured; where a parameter is kept may differ."""
    for round_ in ROUNDS:
        assert_equal(networks(one, round_), networks(other, round_))
    assert_same_tables(one, other, without=("uplink_bytes", "downlink_bytes"))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), (HALF, "model.domain=dual")], ids=["all", "drawn"])
def test_fedmri_without_its_term_is_a_shared_encoder(simulate: Simulate, tmp_path: Path, keys: tuple[str, ...]) -> None:
    (tmp_path / "shared_encoder.py").write_text(SHARED_ENCODER)
    fedmri = simulate("fedmri", "algorithm.beta=0", *keys)
    assert_same_run(fedmri, simulate("shared_encoder:SharedEncoder", *keys))
    assert differ(networks(fedmri, 3), networks(simulate("fedavg", *keys), 3))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), (HALF, "model.norm=batch")], ids=["all", "drawn"])
def test_everything_shared_is_fedavg(simulate: Simulate, keys: tuple[str, ...]) -> None:
    assert_same_run(simulate("fedper", "algorithm.head=[]", *keys), simulate("fedavg", *keys))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), (HALF, "model.norm=batch")], ids=["all", "drawn"])
def test_nothing_shared_is_single(simulate: Simulate, keys: tuple[str, ...]) -> None:
    fedper = simulate("fedper", "algorithm.head=[encoder,decoder]", *keys)
    assert_same_run(fedper, simulate("single", *keys))
    assert (fedper.clients["uplink_bytes"] == 0).all()


@pytest.mark.slow
def test_fedbn_without_norm_parameters_is_fedavg_and_says_so(
    simulate: Simulate, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    fedavg = simulate("fedavg")
    caplog.clear()
    assert_same_run(simulate("fedbn", out=tmp_path / "run"), fedavg)
    (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("FEDBN IS FEDAVG HERE")
    assert "model.norm" in warning


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["affine", "batch"])
def test_fedbn_with_norm_parameters_is_not_fedavg(
    simulate: Simulate, caplog: pytest.LogCaptureFixture, norm: str
) -> None:
    fedbn, fedavg = (simulate(method, f"model.norm={norm}") for method in ("fedbn", "fedavg"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert differ(load(fedbn, 3, "shared"), load(fedavg, 3, "shared"))
    private = [name for name in load(fedbn, 3, "clients/A.1") if not name.startswith("state.")]
    assert private
    assert all("norm" in name for name in private)
    assert not any("norm" in name for name in load(fedbn, 3, "shared"))


@pytest.mark.parametrize("domain", ["image", "kspace", "dual"])
@pytest.mark.parametrize("norm", ["instance", "affine", "batch"])
def test_lg_fedavg_shares_what_fedmri_keeps(domain: str, norm: str) -> None:
    network = UNetModel.model_validate({"domain": domain, "norm": norm, "channels": 2, "pools": 2}).network()
    names = [name for name, _ in (*network.named_parameters(), *network.named_buffers())]
    ours, theirs = ({name for name in names if method.shares(name)} for method in (FedMRI(), LGFedAvg()))
    assert ours
    assert theirs
    assert not ours & theirs
    assert ours | theirs == set(names)


@pytest.mark.slow
def test_fedprox_without_its_term_is_fedavg(simulate: Simulate) -> None:
    keys = ("training.participation=0.75", "algorithm.weighting=samples")
    fedavg = simulate("fedavg", *keys)
    assert_same_run(simulate("fedprox", "algorithm.mu=0", *keys), fedavg)
    assert differ(load(simulate("fedprox", *keys), 3, "shared"), load(fedavg, 3, "shared"))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), (HALF, "model.norm=batch")], ids=["all", "drawn"])
def test_fl_mrcm_without_its_term_is_fedavg(simulate: Simulate, keys: tuple[str, ...]) -> None:
    fl_mrcm, fedavg = simulate("fl_mrcm", "algorithm.lam=0", *keys), simulate("fedavg", *keys)
    for round_ in ROUNDS:
        assert_equal(networks(fl_mrcm, round_), networks(fedavg, round_))
        assert_equal(optimizers(fl_mrcm, round_, "optimizer.shared."), optimizers(fedavg, round_, "optimizer.shared."))
    assert_same_tables(fl_mrcm, fedavg, without=tuple(ADVERSARIAL))
    assert differ(networks(simulate("fl_mrcm", "algorithm.lam=1", *keys), 3), networks(fedavg, 3))


def optimizers(run: Run, round_: int, prefix: str) -> dict[str, np.ndarray]:
    """The clients' optimizer states by client/key."""
    prefix = f"state.{prefix}"
    return {
        f"{name}/{key.removeprefix(prefix)}": array
        for name in clients(run)
        for key, array in load(run, round_, f"clients/{name}").items()
        if key.startswith(prefix)
    }


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), (HALF, "model.norm=batch")], ids=["all", "drawn"])
def test_dittos_shared_model_is_fedavgs(simulate: Simulate, keys: tuple[str, ...]) -> None:
    ditto, fedavg = simulate("ditto", *keys), simulate("fedavg", *keys)
    for round_ in ROUNDS:
        for file in ("shared", *(["server"] if "model.norm=batch" in keys else [])):
            assert_equal(load(ditto, round_, file), load(fedavg, round_, file))
        assert_equal(optimizers(ditto, round_, "optimizer.shared."), optimizers(fedavg, round_, "optimizer.shared."))
    assert (ditto.clients["uplink_bytes"] == fedavg.clients["uplink_bytes"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), (HALF, "model.norm=batch")], ids=["all", "drawn"])
def test_ditto_without_its_pull_is_single(
    simulate: Simulate, workload: Callable[..., Workload], keys: tuple[str, ...]
) -> None:
    """Personal models and their optimizers; metrics too where every client has trained."""
    ditto, single = simulate("ditto", "algorithm.lam=0", *keys), simulate("single", *keys)
    layout = [name for name, _ in make_learner(setup_of(workload("single", *keys))).flat("local").layout]
    for round_ in ROUNDS:
        for client in clients(single):
            personal = load(ditto, round_, f"clients/{client}")
            if "state.personal.shared" in personal:  # otherwise it has not been drawn yet
                own = load(single, round_, f"clients/{client}")
                flat = np.concatenate([own[name].ravel() for name in layout])
                assert np.array_equal(personal["state.personal.shared"], flat)
                assert np.array_equal(personal.get("state.personal.shared_buffers"), own.get("state.local_buffers"))
        drawn = optimizers(single, round_, "optimizer.local.")
        assert_equal(optimizers(ditto, round_, "personal.optimizer.shared."), drawn)
    if HALF not in keys:
        assert_same_tables(ditto, single, without=("loss", "steps", "private_bytes", "uplink_bytes", "downlink_bytes"))


@pytest.mark.slow
def test_ditto_with_its_pull_is_not_single(simulate: Simulate) -> None:
    pulled, alone = (load(simulate("ditto", f"algorithm.lam={lam}"), 3, "clients/B") for lam in (1, 0))
    assert not np.array_equal(pulled["state.personal.shared"], alone["state.personal.shared"])
