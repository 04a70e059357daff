import pytest
import torch
from torch import Tensor

from fedsim.algorithms.fedmri import FedMRI, contrastive_ratio, ratio_and_gradient

CLIENTS = [1, 2, 4, 16, 64]


def encoders(clients: int, size: int = 300, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A current encoder, the mean of the previous ones, and the previous ones; cut into tensors of 100."""
    generator = torch.Generator().manual_seed(seed)
    previous = torch.randn(clients, size, dtype=torch.float64, generator=generator)
    theta = previous[0] + 0.3 * torch.randn(size, dtype=torch.float64, generator=generator)
    return theta.float(), previous.mean(0).float(), previous.float()


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


@pytest.mark.parametrize("clients", CLIENTS)
def test_equals_the_definition_in_value_and_gradient(clients: int) -> None:
    theta, server, previous = encoders(clients)
    reference_theta = theta.double().requires_grad_()
    reference = by_loops(reference_theta, server.double(), previous.double())
    reference.backward()
    theta.requires_grad_()
    ratio = contrastive_ratio(theta, server, previous)
    (2 * ratio).backward()
    assert float(ratio.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    scale = 1 / float((theta.detach() - previous).abs().sum())  # of a single coordinate's pull; S = 1 has none
    torch.testing.assert_close(theta.grad.double() / 2, reference_theta.grad, rtol=1e-5, atol=1e-5 * scale)


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


def test_only_the_encoder_is_shared() -> None:
    method = FedMRI()
    assert method.shares("image.encoder.blocks.0.0.weight")
    assert method.shares("kspace.encoder.blocks.0.0.weight")
    assert not method.shares("image.decoder.last.weight")


def test_warns_where_the_term_cannot_act() -> None:
    (warning,) = FedMRI().warnings({"A": 1, "B": 2})
    assert "1 of 2 clients" in warning
    assert not FedMRI().warnings({"A": 2})
    assert not FedMRI(beta=0).warnings({"A": 1})
