"""Raw data whose coils are combined: the same images, without all coils of a volume in memory."""

import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from fedsim.data.coils import CoilSettings, as_kept
from fedsim.data.encoding import cropped
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.raw import RawSource, sparing
from fedsim.data.shard import write_shard

from .raw_files import coil_images, fastmri
from .test_raw_formats import LAYOUTS, Layout, made

RAW = pytest.mark.parametrize(
    "layout", [one for one in LAYOUTS if one.format != "numpy"], ids=lambda layout: layout.format
)


@RAW
@pytest.mark.parametrize("target", ["rss", "combined"])
def test_coils_combined_slice_by_slice_give_the_bits_of_the_whole_volume(
    layout: Layout, target: Literal["rss", "combined"], tmp_path: Path
) -> None:
    source, settings = made(tmp_path, layout, coil_images(coils=3)), CoilSettings("combine", target)
    assert isinstance(source, RawSource)
    (whole,), (sliced,) = source.volumes(tmp_path), sparing(source, (16, 16), settings).volumes(tmp_path)
    assert (whole.images.ndim, sliced.images.ndim) == (4, 3)
    assert whole.coils == sliced.coils == 3
    expected = as_kept(cropped(whole, (16, 16)), source, settings).images
    assert sliced.images.dtype == expected.dtype
    np.testing.assert_array_equal(sliced.images, expected)


@pytest.mark.parametrize(
    ("settings", "matrix"), [(CoilSettings("keep"), (16, 16)), (CoilSettings(2), (16, 16)), (CoilSettings(), "native")]
)
def test_what_needs_the_whole_volume_is_read_whole(
    settings: CoilSettings, matrix: tuple[int, int] | Literal["native"]
) -> None:
    source = FastMRI(path="site")
    assert sparing(source, matrix, settings) is source


@pytest.mark.slow
def test_an_import_never_holds_all_coils_of_a_volume(tmp_path: Path) -> None:
    """16 coils of 24 slices are 12.6 MB; kept, they are all there at once."""
    images = coil_images(24, coils=16, height=64, width=64)
    fastmri(tmp_path / "site" / "a.h5", images)
    peaks = {}
    for name, settings in {"combined": CoilSettings(), "kept": CoilSettings("keep")}.items():
        tracemalloc.start()
        write_shard(FastMRI(path="site"), tmp_path, (64, 64), tmp_path / f"{name}.h5", settings)
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks["kept"] > images.nbytes
    assert peaks["combined"] < images.nbytes / 2
