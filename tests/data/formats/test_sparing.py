"""Raw data whose coils are combined: the same images, without all coils of a volume in memory."""

import tracemalloc
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pytest

from fedsim.core.errors import InputError
from fedsim.data.coils import CoilSettings, as_kept
from fedsim.data.encoding import cropped, with_centred_echo
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.formats.skm_tea import SKMTEA
from fedsim.data.left_out import noting
from fedsim.data.raw import RawSource, sparing
from fedsim.data.shard import write_shard
from fedsim.mri.geometry import Matrix

from .raw_files import coil_images, fastmri, skm_tea
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
    assert_same_bits(source, tmp_path, settings, matrix)


@pytest.mark.parametrize("matrix", [(16, 16), "native"])
def test_maps_of_a_file_combine_its_coils_slice_by_slice(matrix: Matrix, tmp_path: Path) -> None:
    off_centre = np.exp(2j * np.pi * 3 * np.arange(20) / 20)
    skm_tea(tmp_path / "site" / "a.h5", coil_images(coils=3) * off_centre, echoes=1)
    assert_same_bits(SKMTEA(path="site", maps="file"), tmp_path, CoilSettings("combine", "combined"), matrix)


def assert_same_bits(source: RawSource, root: Path, settings: CoilSettings, matrix: Matrix) -> None:
    (whole,), (sliced,) = source.volumes(root), sparing(source, matrix, settings).volumes(root)
    assert (whole.images.ndim, sliced.images.ndim) == (4, 3)
    assert whole.coils == sliced.coils == 3
    measured = None
    if matrix == "native" or settings.target == "combined":
        with noting(root) as left_out:
            whole, measured = with_centred_echo(whole, root)
        assert "(by -3 of 20 lines)" in {one.part for one in left_out}
        assert measured is not None
        assert with_centred_echo(sliced, root) == (sliced, measured)
    expected = as_kept(cropped(whole, matrix), source, settings).images
    assert sliced.images.dtype == expected.dtype
    np.testing.assert_array_equal(sliced.images, expected)


def test_maps_that_files_lack_or_that_do_not_suit_are_refused(tmp_path: Path) -> None:
    images = coil_images(2)
    file = skm_tea(tmp_path / "site" / "a.h5", images, echoes=1)
    source = sparing(SKMTEA(path="site", maps="file"), (16, 16), CoilSettings("combine", "combined"))
    with h5py.File(file, "r+") as hdf:
        hdf["maps"][0] = 0
    assert next(source.volumes(tmp_path)).images.shape == (2, 24, 20)
    for value, said in ((0, "have only 0"), (np.nan, "have NaN or infinite values")):
        with h5py.File(file, "r+") as hdf:
            hdf["maps"][1] = value
        with pytest.raises(InputError, match=rf"a\.h5: its sensitivity maps {said}; set the source's maps to estimate"):
            list(source.volumes(tmp_path))
    with h5py.File(file, "r+") as hdf:
        del hdf["maps"]
    with pytest.raises(InputError, match=r"a\.h5: holds no sensitivity maps; set the source's maps to estimate or"):
        list(source.volumes(tmp_path))
    skm_tea(file, images[:, :1], echoes=1)
    assert next(source.volumes(tmp_path)).images.shape == (2, 24, 20)


@pytest.mark.parametrize("settings", [CoilSettings("keep"), CoilSettings(2)])
def test_what_needs_the_whole_volume_is_read_whole(settings: CoilSettings) -> None:
    source = FastMRI(path="site")
    assert sparing(source, (16, 16), settings) is source


@pytest.mark.slow
def test_an_import_never_holds_all_coils_of_a_volume(tmp_path: Path) -> None:
    """16 coils of 24 slices are 12.6 MB; kept, they are all there at once."""
    images = coil_images(24, coils=16, height=64, width=64)
    fastmri(tmp_path / "site" / "a.h5", images)
    skm_tea(tmp_path / "with_maps" / "a.h5", images, echoes=1)
    peaks = {}
    raw, with_maps = FastMRI(path="site"), SKMTEA(path="with_maps", maps="file")
    cases: dict[str, tuple[RawSource, CoilSettings, Matrix]] = {
        "kept": (raw, CoilSettings("keep"), (64, 64)),
        "combined": (raw, CoilSettings(), (64, 64)),
        "native": (raw, CoilSettings(target="combined"), "native"),
        "by maps of the file": (with_maps, CoilSettings(target="combined"), (64, 64)),
    }
    for name, (source, settings, matrix) in cases.items():
        tracemalloc.start()
        write_shard(source, tmp_path, matrix, tmp_path / f"{name}.h5", settings)
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks["kept"] > images.nbytes
    assert max(peak for name, peak in peaks.items() if name != "kept") < images.nbytes / 2
