"""Unrolled networks equal their definitions, written out as plain loops, in outputs and gradients."""

import pytest
import torch
from torch import Tensor, nn

from fedsim.core.errors import InputError
from fedsim.data.coils import Target
from fedsim.models.base import Model, Network, is_encoder
from fedsim.models.channels import magnitude
from fedsim.models.modl import MoDLModel
from fedsim.models.reconstruction import UNetModel
from fedsim.models.varnet import Cascade, VarNet, VarNetModel
from fedsim.mri.calibration import calibration_region
from fedsim.mri.coils import normalised
from fedsim.mri.fft import ifft2c
from tests.models import plain

SMALL: dict[str, Model] = {
    "varnet": VarNetModel(cascades=2, channels=3, pools=2, sensitivity_channels=2, sensitivity_pools=2),
    "modl": MoDLModel(iterations=2, channels=4, layers=4, norm="instance", cg_steps=12),
    "complex": UNetModel(domain="complex", channels=3, pools=2),
    "image": UNetModel(channels=3, pools=2),
    "kspace": UNetModel(domain="kspace", channels=3, pools=2),
    "dual": UNetModel(domain="dual", channels=3, pools=2),
}

IDLE = "cascades.0.consistency"
"""The first cascade begins at the measured samples, so its weight has no effect, as in the original."""


def built(name: str) -> Network:
    return SMALL[name].build(torch.Generator().manual_seed(0))


def slices(coils: int = 3, shape: tuple[int, int] = (32, 32), centre: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """k-space (2, C, H, W), masks of lines (2, H, W), sensitivities (2, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    width = shape[1]
    columns = torch.rand(2, width, generator=generator) < 0.3
    start = (width - centre + 1) // 2
    columns[:, start : start + centre] = True
    columns[:, start - 1] = columns[:, start + centre] = False
    mask = columns[:, None].expand(2, *shape).clone()
    draw = torch.randn(2, 2, coils, *shape, dtype=torch.complex64, generator=generator)
    return draw[0] * mask[:, None], mask, normalised(draw[1])


def assert_same_gradients(network: nn.Module, expected: dict[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        theirs = expected[name].grad
        assert theirs is not None
        assert theirs.abs().max() > 0 or name == IDLE, name
        torch.testing.assert_close(parameter.grad, theirs, rtol=0, atol=1e-5 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("shape", [(32, 32), (20, 36)])
@pytest.mark.parametrize("target", ["rss", "combined"])
def test_varnet_is_its_definition(shape: tuple[int, int], target: Target) -> None:
    kspace, mask, _ = slices(shape=shape)
    network = SMALL["varnet"].build(torch.Generator().manual_seed(0), target)
    given, each = plain.parameters(network), zip(kspace, mask, strict=True)
    expected = torch.stack([plain.varnet(given, *one, cascades=2, pools=2, centre=6, target=target) for one in each])
    output = network(kspace, mask)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    for image in (output, expected):
        image.square().mean().backward()
    assert_same_gradients(network, given)


def test_modl_is_its_definition() -> None:
    kspace, mask, maps = slices(shape=(8, 10), centre=4)
    network = SMALL["modl"].model_copy(update={"cg_steps": 60}).build(torch.Generator().manual_seed(0))
    given = plain.parameters(network)
    each = zip(kspace, mask, maps, strict=True)
    expected = torch.stack([plain.modl(given, *one, iterations=2, layers=4) for one in each])
    output = network(kspace, mask, maps)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    for image in (output, expected):
        image.square().mean().backward()
    assert_same_gradients(network, given)


def test_varnet_has_the_parameters_of_the_original() -> None:
    with torch.device("meta"):
        named = dict(VarNetModel().network().named_parameters())
    assert sum(p.numel() for p in named.values()) == 29_936_966
    assert sum(p.numel() for name, p in named.items() if is_encoder(name)) == 18_179_280


def test_modl_has_the_parameters_of_its_convolutions() -> None:
    with torch.device("meta"):
        named = dict(MoDLModel().network().named_parameters())
    convolutions = (2 * 9 + 1) * 64 + 3 * (64 * 9 + 1) * 64 + (64 * 9 + 1) * 2
    assert sum(p.numel() for p in named.values()) == convolutions + 4 * 2 * 64 + 1
    assert {name for name in named if is_encoder(name)} >= {"denoiser.encoder.2.conv.weight"}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("coils", [1, 3])
def test_every_parameter_learns(name: str, coils: int) -> None:
    kspace, mask, maps = slices(coils)
    network = built(name)
    plain.parameters(network)
    output = network(kspace, mask, maps)
    assert output.shape == mask.shape
    assert output.dtype == torch.float32
    (output - 1).square().mean().backward()
    for parameter, value in network.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        assert value.grad.abs().sum() > 0 or parameter == IDLE, parameter


@pytest.mark.parametrize("name", SMALL)
def test_one_coil_is_one_of_several(name: str) -> None:
    """k-space (B, H, W) without maps is that of one coil of sensitivity 1."""
    kspace, mask, _ = slices(1)
    network = built(name)
    plain.parameters(network)
    torch.testing.assert_close(network(kspace[:, 0], mask), network(kspace, mask, torch.ones_like(kspace)))


@pytest.mark.parametrize("name", SMALL)
def test_one_coil_is_its_own_combination(name: str) -> None:
    kspace, mask, _ = slices(1)
    combining = SMALL[name].build(torch.Generator().manual_seed(0), "combined")
    torch.testing.assert_close(combining(kspace[:, 0], mask), built(name)(kspace[:, 0], mask), rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
def test_latent_features_are_one_map_for_a_slice(name: str) -> None:
    kspace, mask, maps = slices()
    network = built(name)
    image, features = network.latent(kspace, mask, maps)
    torch.testing.assert_close(image, network(kspace, mask, maps))
    assert features.shape[:2] == (2, network.latent_channels)
    assert features.dim() == 4


@pytest.mark.parametrize("name", SMALL)
def test_an_empty_slice_gives_finite_gradients(name: str) -> None:
    if name in ("kspace", "dual"):
        pytest.skip("works in units of the measured samples")
    kspace, mask, maps = slices()
    network = built(name)
    network(torch.zeros_like(kspace), mask, maps).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("name", "start"), [("complex", "combined"), ("image", "rss"), ("kspace", "rss")])
def test_a_residual_network_starts_as_the_combined_coils(name: str, start: str) -> None:
    kspace, mask, maps = slices()
    images = ifft2c(kspace)
    expected = (maps.conj() * images).sum(1).abs() if start == "combined" else magnitude(images)
    torch.testing.assert_close(built(name)(kspace, mask, maps), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["varnet", "modl", "complex", "dual"])
def test_clients_can_train_as_one_network(name: str) -> None:
    """Under vmap, outputs and gradients of two clients' networks are those of each alone."""
    kspace, mask, maps = slices()
    networks = [SMALL[name].build(torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    for network in networks:
        plain.parameters(network)
    stacked = {
        key: torch.stack([dict(network.named_parameters())[key].detach() for network in networks]).requires_grad_()
        for key, _ in networks[0].named_parameters()
    }
    together = torch.func.vmap(lambda own: torch.func.functional_call(networks[0], own, (kspace, mask, maps)))(stacked)
    together.square().mean().backward()
    for at, network in enumerate(networks):
        alone = network(kspace, mask, maps)
        torch.testing.assert_close(together[at], alone, rtol=1e-4, atol=1e-5)
        (alone.square().mean() / 2).backward()
        for key, value in network.named_parameters():
            found, scale = stacked[key].grad[at], float(value.grad.abs().max())
            torch.testing.assert_close(found, value.grad, rtol=0, atol=1e-4 * max(scale, 1e-2))


def test_sizes_that_do_not_fit_are_said() -> None:
    model = VarNetModel()
    assert model.fits((33, 47))
    assert not model.fits((24, 47))
    assert model.remedy((24, 47)) == "at least 32; take [32, 47]"
    with pytest.raises(InputError, match="no latent"):
        Network().latent(*slices(1)[:2])


def test_varnet_starts_at_the_calibration_images_and_changes_only_means() -> None:
    kspace, mask, _ = slices()
    network = VarNetModel(cascades=1, channels=3, pools=2, sensitivity_channels=4, sensitivity_pools=2)
    start = network.build(torch.Generator().manual_seed(0))
    assert isinstance(start, VarNet)
    calibration = normalised(ifft2c(kspace * calibration_region(mask)[:, None]))
    alike = (calibration.conj() * start.sensitivity(kspace, mask)).sum(1).abs()
    assert alike.mean() > 0.9  # 1 for equal ones; about 0.5 for random ones of three coils
    image = ifft2c(kspace)[:, 0]
    cascade = start.cascades[0]
    assert isinstance(cascade, Cascade)
    change = cascade.unet.with_latent(image)[0] - image.mean((-2, -1), keepdim=True)
    assert change.abs().amax() < 0.05 * image.abs().amax()
