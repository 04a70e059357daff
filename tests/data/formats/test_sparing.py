"""Raw data whose coils are combined: the same images, without all coils of a volume in memory."""

import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from fedsim.data.coils import CoilSettings, as_kept
from fedsim.data.encoding import cropped, with_centred_echo
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.left_out import noting
from fedsim.data.raw import RawSource, sparing
from fedsim.data.shard import write_shard
from fedsim.mri.geometry import Matrix

from .raw_files import coil_images, fastmri
from .test_raw_formats import LAYOUTS, Layout, made

RAW = pytest.mark.parametrize(
    "layout", [one for one in LAYOUTS if one.format != "numpy"], ids=lambda layout: layout.format
)


@RAW
@pytest.mark.parametrize("matrix", [(16, 16), "native"])
@pytest.mark.parametrize("target", ["rss", "combined"])
def test_coils_combined_slice_by_slice_give_the_bits_of_the_whole_volume(
    layout: Layout, target: Literal["rss", "combined"], matrix: Matrix, tmp_path: Path
) -> None:
    """Also where the echo lies 3 lines off the centre, which then lacks 3 lines at an edge."""
    settings, off_centre = CoilSettings("combine", target), np.exp(2j * np.pi * 3 * np.arange(20) / 20)
    source = made(tmp_path, layout, (coil_images(coils=3) * off_centre).astype(np.complex64))
    assert isinstance(source, RawSource)
    (whole,), (sliced,) = source.volumes(tmp_path), sparing(source, matrix, settings).volumes(tmp_path)
    assert (whole.images.ndim, sliced.images.ndim) == (4, 3)
    assert whole.coils == sliced.coils == 3
    measured = None
    if matrix == "native":
        with noting(tmp_path) as left_out:
            whole, measured = with_centred_echo(whole, tmp_path)
        assert "(by -3 of 20 lines)" in {one.part for one in left_out}
        assert measured is not None
        assert with_centred_echo(sliced, tmp_path) == (sliced, measured)
    expected = as_kept(cropped(whole, matrix), source, settings).images
    assert sliced.images.dtype == expected.dtype
    np.testing.assert_array_equal(sliced.images, expected)


@pytest.mark.parametrize("settings", [CoilSettings("keep"), CoilSettings(2)])
def test_what_needs_the_whole_volume_is_read_whole(settings: CoilSettings) -> None:
    source = FastMRI(path="site")
    assert sparing(source, (16, 16), settings) is source


@pytest.mark.slow
def test_an_import_never_holds_all_coils_of_a_volume(tmp_path: Path) -> None:
    """16 coils of 24 slices are 12.6 MB; kept, they are all there at once."""
    images = coil_images(24, coils=16, height=64, width=64)
    fastmri(tmp_path / "site" / "a.h5", images)
    peaks = {}
    cases: dict[str, tuple[CoilSettings, Matrix]] = {
        "kept": (CoilSettings("keep"), (64, 64)),
        "combined": (CoilSettings(), (64, 64)),
        "native": (CoilSettings(target="combined"), "native"),
    }
    for name, (settings, matrix) in cases.items():
        tracemalloc.start()
        write_shard(FastMRI(path="site"), tmp_path, matrix, tmp_path / f"{name}.h5", settings)
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks["kept"] > images.nbytes
    assert max(peaks["combined"], peaks["native"]) < images.nbytes / 2
