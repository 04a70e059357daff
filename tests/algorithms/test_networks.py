"""Every method trains every network."""

from itertools import cycle

import numpy as np
import pytest

from fedsim.algorithms.catalogue import METHODS
from tests.algorithms.conftest import Simulate, everything

UNROLLED = {
    "varnet": ("cascades=2", "channels=2", "pools=1", "sensitivity_channels=2", "sensitivity_pools=1"),
    "modl": ("iterations=2", "channels=2", "layers=3", "cg_steps=3"),
    "unet": ("domain=complex", "channels=2", "pools=1"),
}
SHORT = ("training.rounds=1", "training.local_epochs=1", "metrics.every=0")


def keys(network: str) -> list[str]:
    return [f"model.{key}" for key in (f"name={network}", *UNROLLED[network])]


def trains(simulate: Simulate, method: str, network: str) -> None:
    done = simulate(method, *keys(network), *SHORT)
    assert np.isfinite(done.clients["loss"]).any()
    assert all(np.isfinite(value).all() for value in everything(done, 1).values())


@pytest.mark.parametrize(("method", "network"), [*zip(METHODS.names(), cycle(UNROLLED), strict=False)])
def test_each_method_trains_a_network(simulate: Simulate, method: str, network: str) -> None:
    trains(simulate, method, network)


@pytest.mark.long
@pytest.mark.parametrize("network", UNROLLED)
@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_trains_every_network(simulate: Simulate, method: str, network: str) -> None:
    trains(simulate, method, network)


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


@pytest.mark.parametrize("network", UNROLLED)
def test_fused_clients_learn_what_single_ones_do(simulate: Simulate, network: str) -> None:
    plain = (*keys(network), *SHORT, "training.optimizer=sgd", "training.lr=1.0e-2")
    alone, together = (everything(simulate("fedavg", *plain, f"training.fuse={fuse}"), 1) for fuse in (1, 2))
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
