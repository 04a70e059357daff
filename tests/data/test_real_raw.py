"""Coil operators on one slice that a scanner measured with eight coils."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsim.mri.coils import adjoint, combined, compressed, compression, estimated_maps, forward, rss
from fedsim.mri.espirit import espirit_maps
from fedsim.mri.fft import ifft2c


@pytest.fixture(scope="module")
def kspace(real_raw: Path) -> Tensor:
    """(coils, H, W)."""
    shape = [int(n) for n in (real_raw / "brain-8coil.hdr").read_text().splitlines()[1].split()[:4]]
    values = np.fromfile(real_raw / "brain-8coil.cfl", np.complex64).reshape(shape, order="F")[0]
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("espirit", [False, True])
def test_sensitivities_explain_what_was_measured(kspace: Tensor, espirit: bool) -> None:
    """One image behind all coils, up to their noise; its magnitude is the root sum of squares."""
    maps = torch.from_numpy(espirit_maps(kspace.numpy())) if espirit else estimated_maps(kspace)
    images, everywhere = ifft2c(kspace), torch.ones(kspace.shape[1:], dtype=torch.bool)
    image, full = adjoint(kspace, maps, everywhere), rss(images)
    head = full > 0.1 * full.amax()
    assert (forward(image, maps, everywhere) - kspace).norm() < 0.15 * kspace.norm()
    torch.testing.assert_close(combined(images, maps).abs()[head].mean(), full[head].mean(), rtol=0.02, atol=0)


def test_half_the_coils_hold_most(kspace: Tensor) -> None:
    matrix = compression(kspace[None], 4)
    full, fewer = rss(ifft2c(kspace)), rss(ifft2c(compressed(kspace, matrix)))
    assert ((full - fewer)[full > 0.1 * full.amax()] / full.amax()).abs().max() < 0.05
