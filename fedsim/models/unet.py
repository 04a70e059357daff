"""The U-Net of the fastMRI baseline (Zbontar et al., arXiv 1811.08839), in two halves: encoder and decoder.

Encoder: the down blocks and the bottleneck. Decoder: the up path and the last layer. With 32 channels and 4 pools the
encoder has 4,709,664 parameters and the decoder 3,046,433. Norm layers are named norm... and decoder levels are counted
from the output (level0), so that methods can recognise layers by the names of their parameters.
"""

import itertools
from collections import OrderedDict
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor, nn

Norm = Literal["instance", "affine", "batch"]
"""instance: no parameters; affine: instance norm with scale and shift; batch: these and running statistics."""


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """A normalisation layer of channels."""
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels, affine=kind == "affine")


def _layers(norm: Norm, **convolutions: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """Each convolution, named by its keyword, with its norm and activation."""
    layers = OrderedDict[str, nn.Module]()
    for name, convolution in convolutions.items():
        number = name.removeprefix("conv")
        layers[name] = convolution
        layers[f"norm{number}"] = norm_layer(norm, convolution.out_channels)
        layers[f"act{number}"] = nn.LeakyReLU(0.2, inplace=True)
    return nn.Sequential(layers)


def _block(norm: Norm, channels_in: int, channels: int) -> nn.Sequential:
    conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return _layers(norm, conv1=conv1, conv2=conv2)


def _up(norm: Norm, channels: int) -> nn.Sequential:
    return _layers(norm, conv=nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=False))


class Encoder(nn.Module):
    """Down blocks and bottleneck."""

    def __init__(self, channels_in: int, channels: int, pools: int, norm: Norm) -> None:
        super().__init__()
        self.channels = channels << pools  # of the latent
        widths = [channels_in, *(channels << level for level in range(pools + 1))]
        self.blocks = nn.ModuleList(_block(norm, a, b) for a, b in itertools.pairwise(widths))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of every level, finest first; the last is the latent (B, channels * 2^pools, H / 2^pools, ...)."""
        features = [self.blocks[0](image)]
        for block in list(self.blocks)[1:]:
            features.append(block(F.avg_pool2d(features[-1], 2)))
        return features


class Decoder(nn.Module):
    """Up path with skip connections, and the 1x1 convolution that makes the output."""

    def __init__(self, channels_out: int, channels: int, pools: int, norm: Norm) -> None:
        super().__init__()
        widths = {f"level{level}": channels << level for level in reversed(range(pools))}
        self.ups = nn.ModuleDict({level: _up(norm, width) for level, width in widths.items()})
        self.blocks = nn.ModuleDict({level: _block(norm, 2 * width, width) for level, width in widths.items()})
        self.last = nn.Conv2d(channels, channels_out, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Output (B, channels_out, H, W) of the encoder's features, finest first."""
        *skips, x = features
        for level, skip in zip(self.ups, reversed(skips), strict=True):
            x = self.blocks[level](torch.cat([self.ups[level](x), skip], dim=1))
        out: Tensor = self.last(x)
        return out


class UNet(nn.Module):
    """(B, C, H, W) to (B, C, H, W); H and W multiples of 2^pools. Residual: the input is added to the output."""

    def __init__(self, channels_in_out: int, channels: int, pools: int, norm: Norm, residual: bool) -> None:
        super().__init__()
        self.encoder = Encoder(channels_in_out, channels, pools, norm)
        self.decoder = Decoder(channels_in_out, channels, pools, norm)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """The network's output, of the input's shape."""
        return self.with_latent(x)[0]

    def with_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output, and the encoder's coarsest features (B, channels * 2^pools, H / 2^pools, ...)."""
        features = self.encoder(x)
        out: Tensor = self.decoder(features)
        return x + out if self.residual else out, features[-1]
