import pytest
import torch
from torch import Tensor

from fedsim.models.base import is_encoder
from fedsim.models.reconstruction import UNetModel
from fedsim.mri.fft import ifft2c

DOMAINS = ("image", "kspace", "dual")


def build(seed: int = 0, **keys: object) -> torch.nn.Module:
    return UNetModel.model_validate(keys).build(torch.Generator().manual_seed(seed))


def measured(size: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, size, size, generator=generator) < 0.4
    return torch.randn(2, size, size, dtype=torch.complex64, generator=generator) * mask, mask


@pytest.mark.parametrize(
    ("domain", "encoder", "total"),
    [("image", 4_709_664, 7_756_097), ("kspace", 4_709_952, 7_756_418), ("dual", 9_419_616, 15_512_515)],
)
def test_parameter_counts_of_the_paper(domain: str, encoder: int, total: int) -> None:
    named = dict(build(domain=domain).named_parameters())
    assert sum(p.numel() for p in named.values()) == total
    assert sum(p.numel() for name, p in named.items() if is_encoder(name)) == encoder


def test_the_small_network_of_the_benchmarks() -> None:
    named = dict(build(channels=8).named_parameters())
    assert sum(p.numel() for name, p in named.items() if is_encoder(name)) == 294_408
    assert sum(p.numel() for name, p in named.items() if not is_encoder(name)) == 190_409


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_residual_network_starts_as_the_zero_filled_image(domain: str) -> None:
    kspace, mask = measured()
    output = build(domain=domain, channels=4, pools=2)(kspace, mask)
    torch.testing.assert_close(output, ifft2c(kspace).abs())


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("residual", [True, False])
def test_every_parameter_learns(domain: str, residual: bool) -> None:
    kspace, mask = measured()
    network = build(domain=domain, channels=4, pools=2, residual=residual)
    for parameter in network.parameters():  # away from the zeros of a residual start
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    network(kspace, mask).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_measured_samples_are_kept() -> None:
    """Hard data consistency: the k-space network changes nothing where the mask is True."""
    kspace, mask = measured()
    network = build(domain="kspace", channels=4, pools=2, residual=False)
    estimate, _ = network._estimate(network.kspace, kspace[:, None], mask)
    completed = torch.where(mask, kspace, estimate[:, 0])
    torch.testing.assert_close(network(kspace, mask), ifft2c(completed).abs())
    assert (estimate[:, 0][~mask].abs() > 0).all()


def test_the_kspace_network_follows_the_scale_of_its_input() -> None:
    kspace, mask = measured()
    network = build(domain="kspace", channels=4, pools=2, residual=False)
    torch.testing.assert_close(network(8 * kspace, mask), 8 * network(kspace, mask), rtol=1e-4, atol=1e-4)


def test_initialisation_is_the_seeds_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (build(seed, channels=4, pools=2, residual=False).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
