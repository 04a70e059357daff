"""The U-Net of the fastMRI baseline (Zbontar et al., arXiv 1811.08839), in two halves: encoder and decoder.

Encoder: the down blocks and the bottleneck. Decoder: the up path and the last layer. With 32 channels and 4 pools the
encoder has 4,709,664 parameters and the decoder 3,046,433.
"""

import itertools
import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor, nn


def _norm_act(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.LeakyReLU(0.2, inplace=True)]


def _block(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        *_norm_act(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        *_norm_act(channels),
    )


class Encoder(nn.Module):
    """Down blocks and bottleneck."""

    def __init__(self, channels_in: int, channels: int, pools: int) -> None:
        super().__init__()
        widths = [channels_in, *(channels << level for level in range(pools + 1))]
        self.blocks = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of every level, finest first; the last is the latent (B, channels * 2^pools, H / 2^pools, ...)."""
        features = [self.blocks[0](image)]
        for block in list(self.blocks)[1:]:
            features.append(block(F.avg_pool2d(features[-1], 2)))
        return features


class Decoder(nn.Module):
    """Up path with skip connections, and the 1x1 convolution that makes the output."""

    def __init__(self, channels_out: int, channels: int, pools: int) -> None:
        super().__init__()
        widths = [channels << level for level in reversed(range(pools))]
        self.ups = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(2 * width, width, 2, stride=2, bias=False), *_norm_act(width))
            for width in widths
        )
        self.blocks = nn.ModuleList(_block(2 * width, width) for width in widths)
        self.last = nn.Conv2d(channels, channels_out, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Output (B, channels_out, H, W) of the encoder's features, finest first."""
        *skips, x = features
        for up, block, skip in zip(self.ups, self.blocks, reversed(skips), strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        out: Tensor = self.last(x)
        return out


class UNet(nn.Module):
    """(B, C, H, W) to (B, C, H, W); H and W multiples of 2^pools. Residual: the input is added to the output."""

    def __init__(self, channels_in_out: int, channels: int, pools: int, residual: bool) -> None:
        super().__init__()
        self.encoder = Encoder(channels_in_out, channels, pools)
        self.decoder = Decoder(channels_in_out, channels, pools)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """The network's output, of the input's shape."""
        out: Tensor = self.decoder(self.encoder(x))
        return x + out if self.residual else out


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """torch's default initialisation of convolutions, drawn from `generator` in the order of the modules.

    A residual U-Net's last layer starts at zero, so the network starts as the identity.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                module.bias.uniform_(-bound, bound, generator=generator)
    for module in network.modules():
        if isinstance(module, UNet) and module.residual:
            nn.init.zeros_(module.decoder.last.weight)
            nn.init.zeros_(module.decoder.last.bias)  # type: ignore[arg-type]
