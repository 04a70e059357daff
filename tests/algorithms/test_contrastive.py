from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor

from fedsim.algorithms import contrastive
from fedsim.algorithms.contrastive import (
    contrastive_ratio,
    gaussian_deviation,
    moment_ratio_and_gradient,
    ratio_and_gradient,
)

CLIENTS = [1, 2, 4, 16, 64]

Array = NDArray[np.float64]


def encoders(clients: int, size: int = 300, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A current encoder, the mean of the previous ones, and the previous ones; cut into tensors of 100."""
    generator = torch.Generator().manual_seed(seed)
    previous = torch.randn(clients, size, dtype=torch.float64, generator=generator)
    theta = previous[0] + 0.3 * torch.randn(size, dtype=torch.float64, generator=generator)
    return theta.float(), previous.mean(0).float(), previous.float()


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


# The exact form


def by_loops(theta: Tensor, server: Tensor, previous: Tensor) -> Tensor:
    """The definition, written out: P = sum over tensors, N = sum over clients and tensors."""
    near = theta.new_zeros(())
    for ours, other in zip(theta.split(100), server.split(100), strict=True):
        near = near + (ours - other).abs().sum()
    far = theta.new_zeros(())
    for client in previous:
        for ours, other in zip(theta.split(100), client.split(100), strict=True):
            far = far + (ours - other).abs().sum()
    return near / (far + 1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("size", [300, 50_000])  # one block, and several with a rest
@pytest.mark.parametrize("clients", CLIENTS)
def test_equals_the_definition_in_value_and_gradient(clients: int, size: int) -> None:
    theta, server, previous = encoders(clients, size)
    reference_theta = theta.double().requires_grad_()
    reference = by_loops(reference_theta, server.double(), previous.double())
    reference.backward()
    theta.requires_grad_()
    ratio = contrastive_ratio(theta, server, previous)
    (2 * ratio).backward()
    assert float(ratio.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    scale = 1 / float((theta.detach() - previous).abs().sum())  # of a single coordinate's pull; S = 1 has none
    torch.testing.assert_close(theta.grad.double() / 2, reference_theta.grad, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.slow
def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties too: their sign is 0."""
    theta, server, previous = encoders(19, 1000)
    previous[3:11, 100:200] = theta[100:200]
    ratio, gradient = ratio_and_gradient(theta, server, previous)
    monkeypatch.setattr(contrastive, "_block", lambda tensor: 48)
    in_small_blocks, its_gradient = ratio_and_gradient(theta, server, previous)
    assert in_small_blocks == pytest.approx(ratio, rel=1e-6)
    torch.testing.assert_close(its_gradient, gradient, rtol=1e-5, atol=0)


@pytest.mark.parametrize("clients", CLIENTS)
def test_is_bounded_by_the_largest_weight(clients: int) -> None:
    theta, _, previous = encoders(clients, seed=3)
    weights = torch.rand(clients, generator=torch.Generator().manual_seed(4)) + 0.1
    weights /= weights.sum()
    for share in (torch.full((clients,), 1 / clients), weights):
        ratio, _ = ratio_and_gradient(theta, share @ previous, previous)
        assert 0 <= ratio <= float(share.max()) * (1 + 1e-5)


@pytest.mark.parametrize("clients", CLIENTS)
def test_is_flat_at_the_server(clients: int) -> None:
    _, server, previous = encoders(clients)
    ratio, gradient = ratio_and_gradient(server.clone(), server, previous)
    assert ratio == 0
    assert not gradient.any()


def test_one_client_feels_nothing() -> None:
    """With one client P = N, a constant ratio."""
    theta, _, previous = encoders(1)
    ratio, gradient = ratio_and_gradient(theta, previous[0], previous)
    assert ratio == pytest.approx(1)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("clients", [2, 5, 40])
def test_without_its_own_is_the_form_over_the_others(clients: int) -> None:
    theta, server, previous = encoders(clients)
    others = torch.cat([previous[:1], previous[2:]])
    ratio, gradient = ratio_and_gradient(theta, server, previous, previous[1])
    expected, its_gradient = ratio_and_gradient(theta, server, others)
    assert ratio == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, its_gradient, rtol=1e-5, atol=1e-10)


def test_nothing_is_left_of_one_client_without_its_own() -> None:
    theta, _, previous = encoders(1)
    ratio, gradient = ratio_and_gradient(theta, previous[0] + 1, previous, previous[0])
    assert ratio == 0
    assert not gradient.any()


# The moment form


def by_formula(theta: Array, server: Array, mean: Array, deviation: Array, clients: int) -> tuple[float, Array]:
    """FIELD's formulas in float64, coordinates without a deviation apart."""
    offset = theta - mean
    z = np.divide(offset, deviation, out=np.zeros_like(offset), where=deviation > 0)
    spread = deviation * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) + offset * erf(z / np.sqrt(2))
    far = clients * np.where(deviation > 0, spread, np.abs(offset)).sum()
    pull = clients * np.where(deviation > 0, erf(z / np.sqrt(2)), np.sign(offset))
    ratio = float(np.abs(theta - server).sum() / far)
    return ratio, (np.sign(theta - server) - ratio * pull) / far


def moments(previous: Tensor) -> tuple[Tensor, Tensor]:
    return previous.mean(0), previous.std(0, correction=0)


@pytest.mark.parametrize("size", [300, 200_000])
@pytest.mark.parametrize("clients", [1, 4, 64])
def test_moments_equal_the_formula(clients: int, size: int) -> None:
    """Also where nothing deviates, at the mean and beside it, and where next to nothing does."""
    theta, server, previous = encoders(clients, size)
    mean, deviation = moments(previous)
    deviation[:60], deviation[60:120] = 0, deviation[60:120] * 1e-30
    mean[:30] = theta[:30]
    vectors: Sequence[Array] = [tensor.double().numpy() for tensor in (theta, server, mean, deviation)]
    expected, its_gradient = by_formula(*vectors, clients)
    ratio, gradient = moment_ratio_and_gradient(theta, server, mean, deviation, clients)
    assert ratio == pytest.approx(expected, rel=1e-5)
    scale = np.abs(its_gradient).max()
    np.testing.assert_allclose(gradient.double().numpy(), its_gradient, rtol=1e-5, atol=1e-5 * scale)


def test_moments_of_clients_that_agree_are_exact() -> None:
    theta, server, previous = encoders(1)
    previous = previous.expand(40, -1)
    ratio, gradient = moment_ratio_and_gradient(theta, server, previous[0], torch.zeros_like(theta), 40)
    expected, its_gradient = ratio_and_gradient(theta, server, previous)
    assert ratio == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(gradient, its_gradient, rtol=1e-5, atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(-6, 1), st.floats(0, 1), st.sampled_from([64, 200]))
def test_moments_are_close_to_the_exact_form(seed: int, exponent: float, way: float, clients: int) -> None:
    """For Gaussian clients whose spread differs from one coordinate to the next."""
    generator = torch.Generator().manual_seed(seed)
    spread = 10**exponent * torch.rand(2000, generator=generator)
    centre = torch.rand(2000, generator=generator) * 10**exponent
    previous = centre + spread * torch.randn(clients, 2000, generator=generator)
    server = previous.mean(0)
    theta = server + (0.1 + way) * spread * torch.randn(2000, generator=generator)
    expected, its_gradient = ratio_and_gradient(theta, server, previous)
    ratio, gradient = moment_ratio_and_gradient(theta, server, *moments(previous), clients)
    assert ratio == pytest.approx(expected, rel=0.15)
    assert cosine(gradient, its_gradient) > 0.99


@pytest.mark.parametrize("clients", [64, 400])
def test_moments_without_its_own(clients: int) -> None:
    theta, server, previous = encoders(clients, 5000)
    expected, its_gradient = ratio_and_gradient(theta, server, previous[1:])
    ratio, gradient = moment_ratio_and_gradient(theta, server, *moments(previous), clients, previous[0])
    assert ratio == pytest.approx(expected, rel=0.02)
    assert cosine(gradient, its_gradient) > 0.99


@pytest.mark.parametrize("drift", [0.0, 0.1, 0.3])
def test_the_deviation_of_gaussians(drift: float) -> None:
    """E|x| of a normal x with mean `drift` and deviation 1, in closed form, gives the deviation back."""
    distance = np.sqrt(2 / np.pi) * np.exp(-(drift**2) / 2) + drift * erf(drift / np.sqrt(2))
    deviation = gaussian_deviation(np.array([drift]), np.array([distance]))
    np.testing.assert_allclose(deviation, 1, rtol=drift**4 + 1e-12)


def test_nothing_deviates_where_nothing_moved() -> None:
    assert gaussian_deviation(np.zeros(1), np.zeros(1)) == 0
