from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsim.algorithms.contrastive import moment_ratio_and_gradient, ratio_and_gradient
from fedsim.algorithms.fedmri import FedMRI, contrastive_ratio

from .stand_in import SIZE, StandIn, a_round, gradient_in_round_2, uploads


def test_only_the_encoder_is_shared() -> None:
    method = FedMRI()
    assert method.shares("image.encoder.blocks.0.0.weight")
    assert method.shares("kspace.encoder.blocks.0.0.weight")
    assert not method.shares("image.decoder.last.weight")


def test_the_ratio_is_public() -> None:
    theta = torch.ones(3, requires_grad=True)
    contrastive_ratio(theta, torch.zeros(3), torch.stack([torch.zeros(3), torch.full((3,), 2.0)])).backward()
    torch.testing.assert_close(theta.grad, torch.full((3,), 1 / 6))


def test_warns_where_the_term_cannot_act() -> None:
    (warning,) = FedMRI().warnings({"A": 1, "B": 2}, [])
    assert "1 of 2 clients" in warning
    assert not FedMRI().warnings({"A": 2}, [])
    assert not FedMRI(beta=0).warnings({"A": 1}, [])


@pytest.mark.parametrize(("cohort", "expected"), [(1, "exact"), (32, "exact"), (33, "moments")])
def test_auto_is_settled_by_the_cohort(cohort: int, expected: str) -> None:
    assert FedMRI().settled(cohort).negatives == expected
    assert FedMRI(negatives="moments").settled(2).negatives == "moments"
    assert FedMRI(negatives="exact").settled(99).negatives == "exact"
    assert FedMRI(exact_up_to=4).settled(5).negatives == "moments"


def test_what_is_sent() -> None:
    def names(**keys: Any) -> list[str]:
        return [upload.name for upload in FedMRI(**keys).uploads("train")]

    assert names(beta=0, negatives="moments", weighting="samples") == names(beta=0) == ["shared"]
    assert not FedMRI(beta=0).uploads("train")[0].collected
    assert names() == names(negatives="exact") == ["shared"]
    assert names(negatives="moments") == ["shared", "distance"]
    assert names(negatives="moments", weighting="samples") == ["shared", "distance", "drift"]


@pytest.mark.parametrize("negatives", ["exact", "moments"])
def test_without_beta_it_is_plain_sharing(negatives: str) -> None:
    server, encoders = uploads(3, 0.1)
    method = FedMRI(beta=0, negatives=negatives, own=False)
    private: dict[str, Tensor] = {}
    state = a_round(method, {"shared": server}, encoders)
    assert state.keys() == {"shared"}
    assert not gradient_in_round_2(method, state, encoders[0], private).pulled
    assert not private


@pytest.mark.parametrize("weights", [None, [0.5, 0.25, 0.15, 0.1] * 4])
@pytest.mark.parametrize("deviation", [1e-5, 1e-2, 3.0])
def test_moments_are_those_of_the_uploads(deviation: float, weights: list[float] | None) -> None:
    """Against NumPy on the uploads themselves; the mean is rounded to float32, like the uploads."""
    server, encoders = uploads(16, deviation)
    weighting = "samples" if weights else "uniform"
    state = a_round(FedMRI(negatives="moments", weighting=weighting), {"shared": server}, encoders, weights)
    offsets = np.stack([encoder.numpy() - server for encoder in encoders]).astype(np.float64)
    distance, drift = np.abs(offsets).mean(0), offsets.mean(0)
    expected = np.sqrt(np.maximum(0, np.pi / 2 * distance**2 - drift**2))
    np.testing.assert_allclose(state["deviation"], expected, rtol=2e-5, atol=2e-5 * deviation)
    np.testing.assert_allclose(state.get("mean", state["shared"]), server + drift, rtol=1e-6, atol=1e-7)
    assert state["count"] == 16
    assert ("mean" in state) == (weights is not None)


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_moments_of_stale_uploads_are_those_of_the_uploads(weighting: str) -> None:
    """The server's encoder is then not their mean, which the drift gives instead."""
    server, encoders = uploads(4, 0.1)
    method = FedMRI(negatives="moments", weighting=weighting, beta=1).overlapping()
    assert isinstance(method, FedMRI)
    assert [upload.name for upload in method.uploads("train")] == ["shared", "distance", "drift"]
    state = a_round(method, {"shared": server}, encoders, mixing=0.3)
    mean = torch.stack(encoders).mean(0)
    np.testing.assert_allclose(state["mean"], mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(state["shared"], 0.7 * server + 0.3 * mean.numpy(), rtol=0, atol=1e-6)
    fresh = a_round(FedMRI(negatives="moments"), {"shared": server}, encoders)
    np.testing.assert_allclose(state["deviation"], fresh["deviation"], rtol=1e-4, atol=1e-6)
    client = gradient_in_round_2(method, state, encoders[0] + 0.05, {})
    vectors = (torch.from_numpy(state[name]) for name in ("shared", "mean", "deviation"))
    _, expected = moment_ratio_and_gradient(encoders[0] + 0.05, *vectors, 4)
    torch.testing.assert_close(client.shared_gradient, expected)


@pytest.mark.parametrize("deviation", [1e-5, 1e-2])
def test_the_deviation_is_that_of_the_clients(deviation: float) -> None:
    server, encoders = uploads(2000, deviation)
    state = a_round(FedMRI(negatives="moments"), {"shared": server}, encoders)
    expected = np.std(np.stack(encoders).astype(np.float64), axis=0)
    np.testing.assert_allclose(state["deviation"], expected, rtol=0.08)


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_moments_have_the_same_bits_whatever_the_hosts(weighting: str) -> None:
    server, encoders = uploads(30, 1e-3)
    weights = [float(w) for w in np.random.default_rng(0).dirichlet(np.ones(30))]
    method = FedMRI(negatives="moments", weighting=weighting)
    one, four = (a_round(method, {"shared": server}, encoders, weights, groups) for groups in (1, 4))
    assert one.keys() == four.keys()
    for name, vector in one.items():
        np.testing.assert_array_equal(vector, four[name])


@pytest.mark.parametrize("negatives", ["auto", "exact", "moments"])
def test_pulls_by_beta_times_the_gradient(negatives: str) -> None:
    server, encoders = uploads(6, 0.1)
    method = FedMRI(beta=7, negatives=negatives)
    state = a_round(method, {"shared": server}, encoders)
    theta = encoders[0] + 0.05
    client = gradient_in_round_2(method, state, theta, {})
    shared = torch.from_numpy(state["shared"])
    if negatives == "moments":
        deviation = torch.from_numpy(state["deviation"])
        ratio, gradient = moment_ratio_and_gradient(theta, shared, shared, deviation, 6)
    else:
        ratio, gradient = ratio_and_gradient(theta, shared, torch.stack(encoders))
    torch.testing.assert_close(client.shared_gradient, 7 * gradient)
    assert client.noted == {"contrastive_ratio": ratio}


def test_starts_in_round_2() -> None:
    client = StandIn(torch.ones(SIZE), 1)
    FedMRI().train(client, {"shared": torch.zeros(SIZE)}, "train")
    assert not client.pulled


def test_the_moments_use_the_unweighted_mean() -> None:
    server, encoders = uploads(4, 0.1)
    method = FedMRI(negatives="moments", weighting="samples", beta=1)
    state = a_round(method, {"shared": server}, encoders, [0.7, 0.1, 0.1, 0.1])
    theta = encoders[0] + 0.05
    client = gradient_in_round_2(method, state, theta, {})
    shared, mean, deviation = (torch.from_numpy(state[name]) for name in ("shared", "mean", "deviation"))
    torch.testing.assert_close(mean, torch.stack(encoders).mean(0))
    _, gradient = moment_ratio_and_gradient(theta, shared, mean, deviation, 4)
    torch.testing.assert_close(client.shared_gradient, gradient)


@pytest.mark.parametrize("negatives", ["exact", "moments"])
def test_leaves_its_own_out_if_it_is_among_them(negatives: str) -> None:
    server, encoders = uploads(6, 0.1)
    method = FedMRI(beta=1, negatives=negatives, own=False)
    state = a_round(method, {"shared": server}, encoders)
    private: dict[str, Tensor] = {}
    method.train(StandIn(encoders[2], 1, private), {"shared": torch.from_numpy(server)}, "train")
    torch.testing.assert_close(private["upload"], encoders[2])
    theta = encoders[2] + 0.05
    shared, vectors = torch.from_numpy(state["shared"]), {k: torch.from_numpy(v) for k, v in state.items()}

    def expected(own: Tensor | None) -> Tensor:
        if negatives == "exact":
            return ratio_and_gradient(theta, shared, vectors["previous"], own)[1]
        return moment_ratio_and_gradient(theta, shared, shared, vectors["deviation"], 6, own)[1]

    stale = {"upload": private["upload"], "upload_round": torch.tensor([0])}  # it sat out round 1
    for kept, own in (({**private}, encoders[2]), (stale, None), ({}, None)):
        client = gradient_in_round_2(method, state, theta, kept)
        torch.testing.assert_close(client.shared_gradient, expected(own))
        torch.testing.assert_close(kept["upload"], theta)
        assert int(kept["upload_round"]) == 2


@pytest.mark.parametrize("negatives", ["exact", "moments"])
def test_a_damped_spread_is_its_running_mean(negatives: str) -> None:
    """After 0.1 and then 0.01 with a damping of 0.75: 0.75 * 0.1 + 0.25 * 0.01; the mean stays the server's encoder."""
    method = FedMRI(negatives=negatives, damping=0.75, own=False)
    server, first = uploads(6, 0.1)
    before = a_round(method, {"shared": server}, first)
    assert before["scale"] == 1
    second = [torch.from_numpy(before["shared"]) + 0.1 * (encoder - torch.from_numpy(server)) for encoder in first]
    state = a_round(method, before, second)
    assert float(state["scale"][0]) == pytest.approx((0.75 * 0.1 + 0.25 * 0.01) / 0.01, rel=2e-2)
    assert set(method.broadcast(state, "train")) == state.keys() - {"spread"}
    if negatives == "exact":
        apart = np.abs(state["previous"] - state["shared"]).sum()
        assert apart == pytest.approx(float(state["spread"][0]), rel=1e-4)
        np.testing.assert_allclose(state["previous"].mean(0), state["shared"], atol=1e-5)
    client = gradient_in_round_2(method, state, second[0], {"upload": second[0], "upload_round": torch.tensor([1])})
    vectors = {name: torch.from_numpy(vector) for name, vector in state.items()}
    own = vectors["shared"] + vectors["scale"] * (second[0] - vectors["shared"])
    if negatives == "exact":
        np.testing.assert_allclose(own.numpy(), state["previous"][0], rtol=0, atol=1e-6)
        _, expected = ratio_and_gradient(second[0], vectors["shared"], vectors["previous"][1:])
    else:
        mean, deviation = vectors["shared"], vectors["deviation"]
        _, expected = moment_ratio_and_gradient(second[0], vectors["shared"], mean, deviation, 6, own)
    torch.testing.assert_close(client.shared_gradient, method.beta * expected, rtol=1e-3, atol=1e-6)


def test_the_l1_term_pulls_each_coordinate_alike_from_round_2_on() -> None:
    server, encoders = uploads(3, 0.1)
    method, private = FedMRI(term="l1", beta=0.5, own=False), dict[str, Tensor]()
    state = a_round(method, {"shared": server}, encoders)
    assert state.keys() == {"shared"}
    client = gradient_in_round_2(method, state, encoders[0], private)
    torch.testing.assert_close(
        client.shared_gradient, 0.5 * torch.sign(encoders[0] - torch.from_numpy(state["shared"]))
    )
    assert not private
    first = StandIn(encoders[0], 1)
    method.train(first, {"shared": torch.from_numpy(server)}, "train")
    assert not first.pulled


def test_keeps_no_upload_unless_it_is_needed() -> None:
    server, encoders = uploads(2, 0.1)
    client = StandIn(encoders[0], 1)
    FedMRI().train(client, {"shared": torch.from_numpy(server)}, "train")
    assert not client.private


@pytest.mark.parametrize("negatives", ["exact", "moments"])
def test_a_client_alone_has_no_negatives_but_its_own(negatives: str) -> None:
    server, encoders = uploads(1, 0.1)
    method = FedMRI(negatives=negatives, own=False)
    state = a_round(method, {"shared": server}, encoders)
    private: dict[str, Tensor] = {"upload": encoders[0], "upload_round": torch.tensor([1])}
    assert not gradient_in_round_2(method, state, encoders[0] + 1, private).pulled


@pytest.mark.parametrize(("own", "times"), [(True, 2.0), (False, 1.75)])
def test_beta_may_grow_with_the_negatives(own: bool, times: float) -> None:
    """At the paper's four clients it is beta; here eight uploaded, of which one may be the client's own."""
    server, encoders = uploads(8, 0.1)
    fixed, scaled = (FedMRI(beta=3, own=own, beta_scaling=scaling) for scaling in ("fixed", "clients"))
    state = a_round(fixed, {"shared": server}, encoders)
    gradients = []
    for method in (fixed, scaled):
        private = {"upload": encoders[0], "upload_round": torch.tensor([1])}
        gradients.append(gradient_in_round_2(method, state, encoders[0] + 0.05, private).shared_gradient)
    torch.testing.assert_close(gradients[1], times * gradients[0])
