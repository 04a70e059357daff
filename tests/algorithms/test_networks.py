"""Every method trains every network."""

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from fedsim.algorithms.catalogue import METHODS
from tests.algorithms.conftest import Simulate, assert_equal, everything

UNROLLED = {
    "varnet": ("cascades=2", "channels=2", "pools=1", "sensitivity_channels=2", "sensitivity_pools=1"),
    "modl": ("iterations=2", "channels=2", "layers=3", "cg_steps=3"),
    "unet": ("domain=complex", "channels=2", "pools=1"),
}
SHORT = ("training.rounds=1", "training.local_epochs=1", "metrics.every=0")


def keys(network: str) -> list[str]:
    return [f"model.{key}" for key in (f"name={network}", *UNROLLED[network])]


def trains(simulate: Simulate, method: str, network: str, *more: str) -> None:
    done = simulate(method, *keys(network), *SHORT, *more)
    assert np.isfinite(done.clients["loss"]).any()
    assert all(np.isfinite(value).all() for value in everything(done, 1).values())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "network"), [*zip(METHODS.names(), cycle(UNROLLED), strict=False)])
def test_each_method_trains_a_network(simulate: Simulate, method: str, network: str) -> None:
    trains(simulate, method, network)


COILS = (
    "federation.coils=keep",
    *(f"sites.{name}.source.coils={coils}" for name, coils in zip("ABC", (2, 3, 2), strict=True)),
)


@pytest.mark.long
@pytest.mark.parametrize("more", [(), COILS], ids=["combined", "kept"])
@pytest.mark.parametrize("network", UNROLLED)
@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_trains_every_network(
    simulate: Simulate, method: str, network: str, more: tuple[str, ...]
) -> None:
    """On one image of a slice, and on the k-space of all its coils."""
    trains(simulate, method, network, *more)


@pytest.mark.parametrize("network", UNROLLED)
def test_the_encoders_are_shared_and_the_rest_stays(simulate: Simulate, network: str) -> None:
    done = simulate("fedmri", *keys(network), *SHORT)
    names = everything(done, 1)
    shared = {name.removeprefix("shared/") for name in names if name.startswith("shared/")}
    own = {name.removeprefix("clients/A.1/") for name in names if name.startswith("clients/A.1/")}
    assert shared
    assert all("encoder" in name.split(".") for name in shared)
    assert any("decoder" in name.split(".") for name in own)
    assert {"varnet": "cascades.1.consistency", "modl": "log_lambda"}.get(network, "image.decoder.last.bias") in own


@pytest.mark.slow
@pytest.mark.parametrize("network", UNROLLED)
def test_fused_clients_learn_what_single_ones_do(simulate: Simulate, network: str) -> None:
    """Clients with other numbers of coils take their steps apart, as those with other matrices do."""
    plain = (*keys(network), *SHORT, *COILS, "training.optimizer=sgd", "training.lr=1.0e-2")
    alone, together = (everything(simulate("fedavg", *plain, f"training.fuse={fuse}"), 1) for fuse in (1, 2))
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["varnet"])
def test_a_resumed_run_of_several_coils_ends_in_the_same_bits(simulate: Simulate, tmp_path: Path, network: str) -> None:
    what = ("fedmri", *keys(network), *COILS, "training.local_epochs=1", "metrics.every=0")
    straight = simulate(*what, "training.rounds=2", out=tmp_path / "straight")
    simulate(*what, "training.rounds=1", out=tmp_path / "resumed")
    resumed = simulate(*what, "training.rounds=2", out=tmp_path / "resumed", resume=True)
    assert_equal(everything(straight, 2), everything(resumed, 2))


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["image", "kspace", "dual"])
def test_a_unet_of_any_domain_takes_several_coils(simulate: Simulate, domain: str) -> None:
    own = (f"model.domain={domain}", "model.channels=2", "model.pools=1")
    trains(simulate, "fedmri", "unet", *own, *COILS)
