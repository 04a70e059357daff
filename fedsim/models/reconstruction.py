"""Reconstruction networks from U-Nets: on magnitudes, on complex images, in k-space, or in k-space and on magnitudes.

All map measured k-space and its mask to a magnitude image. In k-space every coil passes through the same U-Net;
magnitudes are the root sum of squares of the coils, complex images their sum weighted by their sensitivities. The dual
network completes a design of FedMRI (Feng et al., IEEE TMI 42(7), 2023, doi 10.1109/TMI.2022.3202106), since its code
was never published: the k-space scaling, the hard data consistency and the residual form are fedsim's own.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fedsim.data.coils import Target
from fedsim.models.base import Model, Network
from fedsim.models.channels import as_channels, as_complex, by_coil, magnitude, sensitivities
from fedsim.models.unet import Norm, UNet
from fedsim.mri.coils import adjoint
from fedsim.mri.fft import ifft2c


class ReconstructionNetwork(Network):
    """A k-space U-Net with hard data consistency, then an image U-Net on the magnitude; either may be absent."""

    def __init__(self, kspace: UNet | None, image: UNet | None) -> None:
        super().__init__()
        self.kspace = kspace
        self.image = image

    @property
    def latent_channels(self) -> int:
        """C, the number of channels of the latent features."""
        unet = self.image or self.kspace
        return unet.encoder.channels if unet else 0

    def with_latent(self, kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and the last U-Net's coarsest features (B, channels * 2^pools, H / 2^pools, W / 2^pools)."""
        coils, latent = by_coil(kspace), kspace.new_zeros(0)
        if self.kspace is not None:
            estimate, latent = self._estimate(self.kspace, coils, mask)
            coils = torch.where(mask[:, None], coils, estimate)
        image = magnitude(ifft2c(coils))
        if self.image is not None:
            output, latent = self.image.with_latent(image[:, None])
            image = output[:, 0].float()  # autocast may have changed its type
        return image, latent

    @staticmethod
    def _estimate(unet: UNet, kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The U-Net's k-space (B, C, H, W), from real and imaginary part of each coil, and the coils' mean features.

        It works in units of the root mean square of a slice's measured samples.
        """
        energy, samples = kspace.abs().square().sum((-3, -2, -1)), mask.sum((-2, -1)) * kspace.shape[1]
        rms = (energy / samples).sqrt()[:, None, None, None]
        output, latent = unet.with_latent(as_channels((kspace / rms).flatten(0, 1)))
        estimate, latent = (torch.unflatten(each, 0, kspace.shape[:2]) for each in (as_complex(output), latent))
        return estimate * rms, latent.mean(1)


class ComplexNetwork(Network):
    """A U-Net on real and imaginary part of the complex image."""

    takes_maps = True

    def __init__(self, image: UNet) -> None:
        super().__init__()
        self.image = image

    @property
    def latent_channels(self) -> int:
        """C, the number of channels of the latent features."""
        return self.image.encoder.channels

    def with_latent(self, kspace: Tensor, mask: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        """The image, and the U-Net's coarsest features (B, channels * 2^pools, H / 2^pools, W / 2^pools)."""
        image = adjoint(by_coil(kspace), sensitivities(maps, kspace), mask)
        output, latent = self.image.with_latent(as_channels(image))
        return as_complex(output).abs(), latent


class UNetModel(Model):
    """One U-Net, or two in series: in k-space, then in image space."""

    name: Literal["unet"] = Field("unet", description="Network.")
    domain: Literal["image", "complex", "kspace", "dual"] = Field(
        "image",
        description="Where the U-Net works: image (magnitudes), complex (complex images), kspace, or dual (k-space, "
        "data consistency, magnitudes).",
    )
    channels: int = Field(32, ge=1, le=512, description="Channels of the first level; doubled at every pool.")
    pools: int = Field(4, ge=1, le=6, description="Average poolings; every matrix must be a multiple of 2^pools.")
    norm: Norm = Field(
        "instance",
        description="Normalisation layer. instance: without parameters; affine: instance norm with scale and shift; "
        "batch: batch norm; running statistics of shared layers are sent and averaged.",
    )
    residual: bool = Field(True, description="Add the input to the output; training starts at the zero-filled image.")

    @property
    def takes_coils(self) -> bool:
        """Any number of them, in every domain."""
        return True

    @property
    def multiple(self) -> int:
        """Every pool halves the matrix."""
        return 1 << self.pools

    @property
    def smallest(self) -> int:
        """The lowest level needs 2 x 2 pixels to be normalised."""
        return 2 * self.multiple

    def remedy(self, matrix: tuple[int, int]) -> str:
        """Fewer pools, or another matrix."""
        fewer = [n for n in range(1, self.pools) if self.model_copy(update={"pools": n}).fits(matrix)]
        return (
            f"multiples of {self.multiple} (2^model.pools), at least {self.smallest}: every pool halves the matrix, "
            "and the lowest level needs 2 x 2 pixels to be normalised; "
            + (f"set model.pools to at most {fewer[-1]}, or " if fewer else "")
            + f"take {self.nearest(matrix)}"
        )

    def build(self, generator: torch.Generator, target: Target = "rss") -> Network:
        """As for any network; the last layer of a residual U-Net starts at zero, which makes it the identity."""
        network = super().build(generator, target)
        for module in network.modules():
            if isinstance(module, UNet) and module.residual:
                nn.init.zeros_(module.decoder.last.weight)
                nn.init.zeros_(module.decoder.last.bias)  # type: ignore[arg-type]
        return network

    def network(self) -> Network:
        """The U-Nets of the domain."""
        image, kspace = (UNet(parts, self.channels, self.pools, self.norm, self.residual) for parts in (1, 2))
        if self.domain == "complex":
            return ComplexNetwork(kspace)
        return ReconstructionNetwork(
            kspace=None if self.domain == "image" else kspace, image=None if self.domain == "kspace" else image
        )
