from collections.abc import Callable

import numpy as np
import pytest
import torch

from fedsim.algorithms import fedmri
from fedsim.engine.record.run_directory import Run
from tests.engine.conftest import load

Simulate = Callable[..., Run]

# A has two clients with half the training subjects each, so the four clients are unequal.
SAMPLES = "algorithm.weighting=samples"


def test_weights_follow_the_samples(simulate: Simulate) -> None:
    clients = simulate(SAMPLES, "training.rounds=1").clients
    np.testing.assert_allclose(clients["weight"], clients["samples"] / clients["samples"].sum())
    assert clients["samples"].nunique() > 1


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_the_server_is_the_weighted_mean(simulate: Simulate, weighting: str) -> None:
    run = simulate(f"algorithm.weighting={weighting}", "training.rounds=1")
    weights = run.clients["weight"].to_numpy()
    previous = load(run, 1, "server")["previous"].astype(np.float64)
    shared = np.concatenate([value.ravel() for value in _in_order(run)])
    np.testing.assert_allclose(shared, weights @ previous, rtol=1e-6, atol=1e-9)


def _in_order(run: Run) -> list[np.ndarray]:
    arrays = load(run, 1, "shared")
    return [arrays[name] for name, _ in run.model("B").named_parameters() if name in arrays]


@pytest.mark.slow
def test_every_step_keeps_the_bound(simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    """P / N <= max_k w_k in every single step of a run with unequal sites."""
    ratios, original = [], fedmri.ratio_and_gradient

    def recorded(*vectors: torch.Tensor) -> tuple[float, torch.Tensor]:
        result = original(*vectors)
        ratios.append(result[0])
        return result

    monkeypatch.setattr(fedmri, "ratio_and_gradient", recorded)
    run = simulate(SAMPLES, "algorithm.beta=10")
    per_epoch = np.ceil(run.clients.loc[run.clients["round"] == 1, "samples"] / 3)
    assert len(ratios) == 2 * (per_epoch - 1).sum(), "every batch but the first, in rounds 2 and 3"
    assert 0 < max(ratios) <= run.clients["weight"].max() * (1 + 1e-6)
    logged = run.clients.loc[run.clients["round"] > 1, "contrastive_ratio"]
    assert logged.between(0, run.clients["weight"].max()).all()
    assert run.clients.loc[run.clients["round"] == 1, "contrastive_ratio"].isna().all(), "it starts in round 2"
