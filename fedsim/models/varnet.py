"""E2E-VarNet (Sriram et al., MICCAI 2020, arXiv 2004.06688): unrolled gradient steps on the k-space of all coils.

With y the measured k-space, M the mask, F the Fourier transform, and sensitivities S that a small U-Net estimates from
the calibration region:

    k_0 = y,   k_{t+1} = k_t - eta_t M (k_t - y) - F S U_t(S^H F^-1 k_t),   image = root sum of squares of F^-1 k_T

Trained to `federation.target: combined` it gives |S^H F^-1 k_T| instead. Every cascade t has its own U-Net U_t and its
own weight eta_t. At its default sizes the network has the 29,936,966 parameters of the original, of which 18,179,280
are its encoders'. Their initial values are not the original's: the sensitivities start near the images of the
calibration region over their root sum of squares, and every U_t at the mean of its image.
"""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from pydantic import Field
from torch import Tensor, nn

from fedsim.models.base import Model, Network
from fedsim.models.channels import as_channels, as_complex, by_coil, magnitude
from fedsim.models.unet import Norm, UNet
from fedsim.mri.calibration import calibration_region
from fedsim.mri.coils import combined, normalised
from fedsim.mri.fft import fft2c, ifft2c

_PADDED = 16  # images are padded to multiples of this, as in fastMRI, or of what the U-Net needs
_LEAST_DEVIATION = 1e-6  # of a part of an image, whose slice has a deviation of 1
_QUIET = 0.01  # factor of the last layers' initial values; at 0 an empty slice would have no gradient


class NormedUNet(UNet):
    """A U-Net on complex images (B, H, W) of any size.

    Real and imaginary part enter with mean 0 and standard deviation 1 each, which is undone at the end.
    """

    def __init__(self, channels: int, pools: int, norm: Norm) -> None:
        super().__init__(2, channels, pools, norm, residual=False)
        self._multiple = max(_PADDED, 1 << pools)

    def with_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, H, W), and the encoder's coarsest features (B, channels * 2^pools, ...) of the padded image."""
        parts = as_channels(x)
        mean = parts.mean((-2, -1), keepdim=True)
        deviation = parts.std((-2, -1), keepdim=True).clamp_min(_LEAST_DEVIATION)
        (top, bottom), (left, right) = (self._margins(side) for side in parts.shape[-2:])
        padded = F.pad((parts - mean) / deviation, (left, right, top, bottom))
        output, latent = super().with_latent(padded)
        height, width = parts.shape[-2:]
        cut = output[..., top : top + height, left : left + width]
        return as_complex(cut * deviation + mean), latent

    def _margins(self, side: int) -> tuple[int, int]:
        """Zeros before and after an axis."""
        missing = -side % self._multiple
        return missing // 2, missing - missing // 2


def _pass_on(unet: UNet) -> None:
    """Let four channels carry real and imaginary part, with both signs, from the input along the finest level.

    Rectifiers and norm layers change a value and its negative alike, so that the output, half their difference, is a
    monotone function of the input: about the identity. The other channels keep their random weights, unused at first.
    """
    parts, kept = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), torch.eye(4)
    last = unet.get_parameter("decoder.last.weight")
    skip = last.shape[1]  # input channels of the decoder's block before those of the skip connection
    for name, start, weights in (
        ("encoder.blocks.0.conv1", 0, parts),
        ("encoder.blocks.0.conv2", 0, kept),
        ("decoder.blocks.level0.conv1", skip, kept),
        ("decoder.blocks.level0.conv2", 0, kept),
    ):
        kernels = unet.get_parameter(f"{name}.weight")[:4]
        kernels.zero_()[:, start : start + weights.shape[1], 1, 1] = weights
    last[:, :4, 0, 0] = parts.T / 2


def _quieten(unet: UNet) -> None:
    """Let the output start near 0, which for a normed U-Net is the mean of its image."""
    for parameter in unet.decoder.last.parameters():
        parameter.mul_(_QUIET)


class Sensitivities(nn.Module):
    """Estimates the sensitivities of coils from the calibration region of their k-space."""

    def __init__(self, channels: int, pools: int, norm: Norm) -> None:
        super().__init__()
        self.unet = NormedUNet(channels, pools, norm)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start near the identity, where there are four channels for it: the images of the calibration region."""
        _quieten(self.unet)
        if self.unet.decoder.last.in_channels >= 4:
            _pass_on(self.unet)

    def forward(self, kspace: Tensor, mask: Tensor) -> Tensor:
        """Sensitivities (B, C, H, W) of measured k-space (B, C, H, W) and mask (B, H, W)."""
        images = ifft2c(kspace * calibration_region(mask)[:, None])
        return normalised(self.unet(images.flatten(0, 1)).unflatten(0, kspace.shape[:2]))


class Cascade(nn.Module):
    """A step towards the measured samples, and one by a U-Net."""

    def __init__(self, channels: int, pools: int, norm: Norm) -> None:
        super().__init__()
        self.unet = NormedUNet(channels, pools, norm)
        self.consistency = nn.Parameter(torch.empty(1))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Full data consistency, and a U-Net that returns about the mean of its image."""
        nn.init.ones_(self.consistency)
        _quieten(self.unet)

    def forward(self, kspace: Tensor, measured: Tensor, mask: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The next k-space (B, C, H, W), and the U-Net's latent features; all arguments are (B, C or 1, H, W)."""
        update, latent = self.unet.with_latent(combined(ifft2c(kspace), maps))
        error = (kspace - measured) * mask
        return kspace - self.consistency * error - fft2c(maps * update[:, None]), latent


class VarNet(Network):
    """Cascades, and the U-Net that estimates sensitivities for all of them."""

    def __init__(self, sensitivity: Sensitivities, cascades: list[Cascade]) -> None:
        super().__init__()
        self.sensitivity = sensitivity
        self.cascades = nn.ModuleList(cascades)

    @property
    def latent_channels(self) -> int:
        """C, the number of channels of the latent features."""
        last = self.cascades[-1]
        assert isinstance(last, Cascade)
        return last.unet.encoder.channels

    def with_latent(self, kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and the last cascade's coarsest features (B, channels * 2^pools, ...)."""
        measured, latent = by_coil(kspace), kspace.new_zeros(0)
        maps, current = self.sensitivity(measured, mask), measured
        for cascade in self.cascades:
            current, latent = cascade(current, measured, mask[:, None], maps)
        return self._image(ifft2c(current), maps), latent

    def _image(self, images: Tensor, maps: Tensor) -> Tensor:
        """The magnitude (B, H, W) of coil images (B, C, H, W), combined as its target is."""
        by_maps = self.target == "combined" and images.shape[1] > 1
        return combined(images, maps).abs() if by_maps else magnitude(images)


class VarNetModel(Model):
    """E2E-VarNet, an unrolled network; it takes any number of coils."""

    name: Literal["varnet"] = Field("varnet", description="Network.")
    cascades: int = Field(12, ge=1, le=64, description="Cascades.")
    channels: int = Field(18, ge=1, le=512, description="Channels of a cascade's first level; doubled at every pool.")
    pools: int = Field(4, ge=1, le=6, description="Average poolings of a cascade; images are padded to what it needs.")
    sensitivity_channels: int = Field(8, ge=1, le=512, description="Channels of the U-Net that estimates coils.")
    sensitivity_pools: int = Field(4, ge=1, le=6, description="Its average poolings.")
    norm: Norm = Field("instance", description="Normalisation layer of all U-Nets: instance, affine or batch.")

    @property
    def takes_coils(self) -> bool:
        """Any number of them."""
        return True

    @property
    def smallest(self) -> int:
        """The lowest level needs 2 x 2 pixels to be normalised."""
        return max(super().smallest, 2 << max(self.pools, self.sensitivity_pools))

    def network(self) -> VarNet:
        """The cascades, and the U-Net for sensitivities."""
        sensitivity = Sensitivities(self.sensitivity_channels, self.sensitivity_pools, self.norm)
        return VarNet(sensitivity, [Cascade(self.channels, self.pools, self.norm) for _ in range(self.cascades)])
