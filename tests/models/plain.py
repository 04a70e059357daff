"""Networks written out plainly, from their parameters by name."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor, nn

Parameters = dict[str, Tensor]


def parameters(network: nn.Module) -> Parameters:
    """A network's parameters, away from zero starts, and set to the same in the network."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}


def within(given: Parameters, prefix: str) -> Parameters:
    """The parameters of a part, named as it names them."""
    return {name.removeprefix(f"{prefix}."): value for name, value in given.items() if name.startswith(f"{prefix}.")}


def fourier(image: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image), norm="ortho"))


def inverse(kspace: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace), norm="ortho"))


def unet(given: Parameters, x: Tensor, pools: int) -> Tensor:
    """The U-Net with instance norm, on (1, C, H, W)."""

    def finished(x: Tensor) -> Tensor:
        return F.leaky_relu(F.instance_norm(x), 0.2)

    def block(x: Tensor, name: str) -> Tensor:
        x = finished(F.conv2d(x, given[f"{name}.conv1.weight"], padding=1))
        return finished(F.conv2d(x, given[f"{name}.conv2.weight"], padding=1))

    features = [block(x, "encoder.blocks.0")]
    for level in range(1, pools + 1):
        features.append(block(F.avg_pool2d(features[-1], 2), f"encoder.blocks.{level}"))
    x = features.pop()
    for level in reversed(range(pools)):
        up = finished(F.conv_transpose2d(x, given[f"decoder.ups.level{level}.conv.weight"], stride=2))
        x = block(torch.cat([up, features.pop()], 1), f"decoder.blocks.level{level}")
    return F.conv2d(x, given["decoder.last.weight"], given["decoder.last.bias"])


def normed_unet(given: Parameters, image: Tensor, pools: int) -> Tensor:
    """E2E-VarNet's U-Net on one complex image (H, W)."""
    height, width = image.shape
    parts = [image.real, image.imag]
    means, deviations = [part.mean() for part in parts], [part.std() for part in parts]
    tall, wide = (-(-side // 16) * 16 for side in (height, width))
    top, left = (tall - height) // 2, (wide - width) // 2
    frames = []
    for part, mean, deviation in zip(parts, means, deviations, strict=True):
        frame = torch.zeros(tall, wide)
        frame[top : top + height, left : left + width] = (part - mean) / deviation
        frames.append(frame)
    output = unet(given, torch.stack(frames)[None], pools)[0, :, top : top + height, left : left + width]
    real, imaginary = (one * std + mean for one, std, mean in zip(output, deviations, means, strict=True))
    return torch.complex(real, imaginary)


def varnet(
    given: Parameters, kspace: Tensor, mask: Tensor, *, cascades: int, pools: int, centre: int, target: str
) -> Tensor:
    """The image (H, W) of one slice's k-space (C, H, W) and mask of lines (H, W) with so many lines in its centre."""
    width = mask.shape[-1]
    start = (width - centre + 1) // 2
    low = torch.zeros_like(kspace)
    low[..., start : start + centre] = kspace[..., start : start + centre]
    found = [normed_unet(within(given, "sensitivity.unet"), inverse(coil), pools) for coil in low]
    total = sum(one.real**2 + one.imag**2 for one in found).sqrt()
    maps = [one / total for one in found]
    current = list(kspace)
    for cascade in range(cascades):
        image = sum(one.conj() * inverse(coil) for one, coil in zip(maps, current, strict=True))
        update = normed_unet(within(given, f"cascades.{cascade}.unet"), image, pools)
        eta = given[f"cascades.{cascade}.consistency"]
        current = [
            now - eta * torch.where(mask, now - measured, torch.zeros(())) - fourier(one * update)
            for now, measured, one in zip(current, kspace, maps, strict=True)
        ]
    if target == "combined":
        return sum(one.conj() * inverse(coil) for one, coil in zip(maps, current, strict=True)).abs()
    return sum(inverse(coil).abs() ** 2 for coil in current).sqrt()


def modl(given: Parameters, kspace: Tensor, mask: Tensor, maps: Tensor, *, iterations: int, layers: int) -> Tensor:
    """The image (H, W) of one slice, with every system of equations solved as a dense one; instance norm."""
    height, width = mask.shape
    pixels = torch.eye(height * width, dtype=kspace.dtype).reshape(-1, height, width)
    operator = torch.stack([torch.cat([(mask * fourier(one * x)).flatten() for one in maps]) for x in pixels], 1)
    normal, back = operator.mH @ operator, operator.mH @ kspace.flatten()
    weight = given["log_lambda"].exp()
    names = [f"encoder.{number}" for number in range((layers + 1) // 2)]
    names += [f"decoder.block{number}" for number in range(layers - 1 - len(names))]
    image = back
    for _ in range(iterations):
        x = torch.view_as_real(image.reshape(height, width)).permute(2, 0, 1)[None]
        for name in names:
            own = within(given, f"denoiser.{name}.conv")
            x = F.relu(F.instance_norm(F.conv2d(x, own["weight"], own["bias"], padding=1)))
        own = within(given, "denoiser.decoder.last")
        noise = F.conv2d(x, own["weight"], own["bias"], padding=1)[0]
        denoised = image + torch.complex(noise[0], noise[1]).flatten()
        image = torch.linalg.solve(normal + weight * torch.eye(len(normal)), back + weight * denoised)
    return image.abs().reshape(height, width)
