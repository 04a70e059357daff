"""MoDL (Aggarwal et al., IEEE TMI 38(2), 2019, arXiv 1712.02862): one denoiser in turn with data consistency.

With A the operator from an image to the measured k-space y of all coils, and one denoiser D for all iterations:

    x_0 = A^H y,   x_{t+1} = (A^H A + lambda)^-1 (A^H y + lambda D(x_t)),   D(x) = x + N(x)

The inverse is taken by conjugate gradients; lambda is learned, as its logarithm, so that it stays positive. N is a
convolutional network on real and imaginary part; its last layer starts at zero.
"""

import itertools
import math
from collections import OrderedDict
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fedsim.models.base import Model, Network
from fedsim.models.channels import as_channels, as_complex, by_coil, sensitivities
from fedsim.models.unet import Norm, norm_layer
from fedsim.mri.coils import adjoint
from fedsim.mri.sense import solve

_LAMBDA = 0.05  # at the start, as in the authors' code


def _block(norm: Norm, channels_in: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, 3, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm_layer(norm, channels), act=nn.ReLU()))


class Denoiser(nn.Module):
    """Convolutions of 3x3 pixels: the first half of them is the encoder, the rest the decoder."""

    def __init__(self, channels: int, layers: int, norm: Norm) -> None:
        super().__init__()
        blocks = [_block(norm, a, b) for a, b in itertools.pairwise([2, *[channels] * (layers - 1)])]
        half = (layers + 1) // 2
        self.encoder = nn.Sequential(*blocks[:half])
        rest = {f"block{number}": block for number, block in enumerate(blocks[half:])}
        self.decoder = nn.Sequential(OrderedDict(**rest, last=nn.Conv2d(channels, 2, 3, padding=1)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The denoised image (B, H, W) complex, and the encoder's features (B, channels, H, W)."""
        latent = self.encoder(as_channels(image))
        return image + as_complex(self.decoder(latent)), latent


class MoDL(Network):
    """Iterations of one denoiser and data consistency."""

    takes_maps = True

    def __init__(self, denoiser: Denoiser, channels: int, iterations: int, steps: int) -> None:
        """Latent features have `channels`; data consistency takes `steps` of conjugate gradients."""
        super().__init__()
        self.denoiser = denoiser
        self.log_lambda = nn.Parameter(torch.empty(1))
        self._channels, self._iterations, self._steps = channels, iterations, steps

    def reset_parameters(self) -> None:
        """Start with little trust in the denoiser, which then is the identity."""
        nn.init.constant_(self.log_lambda, math.log(_LAMBDA))
        last = self.denoiser.get_submodule("decoder.last")
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    @property
    def latent_channels(self) -> int:
        """C, the number of channels of the latent features."""
        return self._channels

    def with_latent(self, kspace: Tensor, mask: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        """The image, and the features (B, channels, H, W) of the last iteration's encoder."""
        maps, weight, latent = sensitivities(maps, kspace), self.log_lambda.exp(), kspace.new_zeros(0)
        image = measured = adjoint(by_coil(kspace), maps, mask)
        for _ in range(self._iterations):
            denoised, latent = self.denoiser(image)
            image = solve(measured + weight * denoised, weight, maps, mask, self._steps)
        return image.abs(), latent


class MoDLModel(Model):
    """MoDL, an unrolled network; it takes any number of coils with their sensitivities."""

    name: Literal["modl"] = Field("modl", description="Network.")
    iterations: int = Field(10, ge=1, le=64, description="Times that the denoiser and data consistency take turns.")
    channels: int = Field(64, ge=1, le=512, description="Channels of the denoiser.")
    layers: int = Field(5, ge=2, le=32, description="Convolutions of the denoiser.")
    norm: Norm = Field("batch", description="Normalisation layer of the denoiser: instance, affine or batch.")
    cg_steps: int = Field(10, ge=1, le=100, description="Steps of conjugate gradients in each data consistency.")

    @property
    def takes_coils(self) -> bool:
        """Any number of them."""
        return True

    def network(self) -> MoDL:
        """The denoiser, and lambda."""
        denoiser = Denoiser(self.channels, self.layers, self.norm)
        return MoDL(denoiser, self.channels, self.iterations, self.cg_steps)
