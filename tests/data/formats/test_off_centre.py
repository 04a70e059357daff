"""Raw data whose echo lies off the centre, or of which lines were not measured, with its coils combined."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedsim.data.coils import CoilSettings
from fedsim.data.left_out import lines
from fedsim.data.shard import Shard, ensure_shard
from fedsim.data.source import StoredVolume
from fedsim.mri.fft import ifft2c
from fedsim.mri.geometry import Matrix

from . import raw_files as write
from .test_raw_formats import LAYOUTS, Layout, cut, made

WIDTH, OFF, EDGE = 20, 3, 4
INNER = np.abs(np.arange(WIDTH) - WIDTH / 2 + 0.5) < WIDTH / 2 - EDGE
Target = Literal["rss", "combined"]
TWO_READERS = pytest.mark.parametrize(
    "layout", [one for one in LAYOUTS if one.format in ("fastmri", "numpy")], ids=lambda layout: layout.format
)


def images(coils: int) -> NDArray[np.complex64]:
    """Coil images whose outer lines are empty, so that no sample is lost where the echo moves."""
    return cut(write.coil_images(coils=coils), INNER).astype(np.complex64)


def stored(
    root: Path, layout: Layout, values: NDArray[np.complex64], matrix: Matrix, target: Target
) -> tuple[NDArray[np.complex64], StoredVolume, list[str]]:
    """Images (slices, H, W) from a shard, what it says about them, and what was left out."""
    source = made(root, layout, values)
    with Shard(ensure_shard(source, root, root / "cache", matrix, CoilSettings("combine", target))) as shard:
        (volume,), kspace = shard.volumes(), shard.kspace(Path(layout.name).stem, slice(None))
        return ifft2c(torch.from_numpy(kspace)).numpy(), volume, lines(shard.left_out())


@TWO_READERS
@pytest.mark.parametrize("off", [OFF, -OFF])
@pytest.mark.parametrize(("coils", "target"), [(3, "combined"), (1, "combined"), (1, "rss"), (3, "rss")])
@pytest.mark.parametrize("matrix", [(16, 16), (32, 32), "native"])
def test_a_shifted_echo_changes_only_the_phase(
    layout: Layout, off: int, coils: int, target: Target, matrix: Matrix, tmp_path: Path
) -> None:
    """Also where k-space is cropped: lines about the echo stay, with the sensitivities that are estimated there."""
    ramp = np.exp(2j * np.pi * off * np.arange(WIDTH) / WIDTH)
    centred, there, _ = stored(tmp_path / "a", layout, images(coils), matrix, target)
    shifted, here, told = stored(tmp_path / "b", layout, (images(coils) * ramp).astype(np.complex64), matrix, target)
    np.testing.assert_allclose(np.abs(shifted), np.abs(centred), atol=1e-3)
    assert (here.lines, here.support) == (there.lines, there.support)
    keeps_phase = coils == 1 or target == "combined"
    assert (here.lines is not None) == keeps_phase
    said = f"echo that was off the centre, moved there: site/{layout.name} (by {-off} of {WIDTH} lines)"
    assert any(said in line for line in told) == (keeps_phase or matrix == "native")


@TWO_READERS
def test_combined_coils_keep_to_the_lines_that_were_measured(layout: Layout, tmp_path: Path) -> None:
    """Partial Fourier: lines 6 to 20 of 20, at a matrix of 16 of the 24 lines of the square field of view."""
    partial = cut(write.coil_images(coils=3), np.arange(WIDTH) >= 6).astype(np.complex64)
    _, volume, told = stored(tmp_path, layout, partial, (16, 16), "combined")
    assert volume.lines == (8 - round(4 / 20 * 24), 16)
    assert any(f"(6 of {WIDTH})" in line for line in told)
