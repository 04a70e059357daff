"""Importers of raw data: the coil images that went into files of each layout come out of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter

from fedsim.core.errors import InputError
from fedsim.data.kspace import KSpaceSource, is_undersampled, measured
from fedsim.data.shard import shard_path
from fedsim.data.source import Volume
from fedsim.data.sources import AnySource, detect

from . import raw_files as write
from .raw_files import coil_images

Lines = NDArray[np.bool_]
LINES = np.zeros(20, bool)
LINES[1::3] = LINES[8:12] = True


@dataclass(frozen=True)
class Layout:
    """A raw format: a file of it below site/, and what it must give."""

    format: str
    name: str
    write: Callable[..., object]
    """Called with a path, images and perhaps a mask."""
    subject: str


LAYOUTS = [
    Layout("fastmri", "file1000001.h5", write.fastmri, "file1000001"),
    Layout("m4raw", "2022061003_T201.h5", write.fastmri, "2022061003"),
    Layout("calgary_campinas", "e14089s3_P53248.7.h5", write.calgary, "e14089"),
    Layout("cmrxrecon", "P007/cine_sax.mat", write.cmrxrecon, "P007"),
    Layout("skm_tea", "MTR_005.h5", lambda p, *a, **k: write.skm_tea(p, *a, echoes=1, **k), "MTR_005"),
    Layout("bart", "head.cfl", lambda p, i, mask=1: write.bart(p, to_bart(write.transformed(i) * mask)), "head"),
    Layout("mrd", "meas_42.mrd", write.mrd, "Anna"),
    Layout("numpy", "case7.npy", lambda p, i, mask=1: np.save(p, write.transformed(i) * mask), "case7"),
]
BY_NAME = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.format)


def to_bart(kspace: NDArray[Any]) -> NDArray[Any]:
    """(readout, phase encoding, 1, coils, 1, ..., slices) of (slices, coils, H, W)."""
    return kspace.transpose(2, 3, 1, 0).reshape(*kspace.shape[2:], 1, kspace.shape[1], *[1] * 9, len(kspace))


def made(root: Path, layout: Layout, images: NDArray[Any], *mask: Lines) -> KSpaceSource:
    """The source that is detected for a file of a layout."""
    path = root / "site" / layout.name
    path.parent.mkdir(parents=True, exist_ok=True)
    layout.write(path, images, **({"mask": mask[0]} if mask else {}))
    source = detect(root / "site")
    assert source.format == layout.format
    assert isinstance(source, KSpaceSource)
    return source


def of(root: Path, format_: str, **keys: Any) -> list[Volume]:
    """The volumes of the files below site/."""
    source = TypeAdapter(AnySource).validate_python({"format": format_, "path": "site", **keys})
    return list(source.volumes(root))


def magnitude(images: NDArray[Any]) -> NDArray[Any]:
    """(slices, H, W): the root sum of squares, whether coils are combined already or not."""
    return np.linalg.norm(images, axis=1) if images.ndim == 4 else np.abs(images)


@BY_NAME
def test_images_come_out_as_they_went_in(layout: Layout, tmp_path: Path) -> None:
    images = coil_images()
    partial = images if layout.format != "calgary_campinas" else cut(images, np.arange(20) < 17)
    (volume,) = made(tmp_path, layout, images).volumes(tmp_path)
    assert volume.subject == layout.subject
    assert volume.origin == f"site/{layout.name}"
    np.testing.assert_allclose(magnitude(volume.images), magnitude(partial), atol=1e-3)


@BY_NAME
def test_kspace_is_centred_and_its_images_have_smooth_phase(layout: Layout, tmp_path: Path) -> None:
    """Not only the magnitude: sensitivities are estimated from the phase of neighbouring pixels."""
    images = coil_images()
    (raw,) = made(tmp_path, layout, images).raw(tmp_path)
    wanted = write.transformed(images) * (np.arange(20) < 17 if layout.format == "calgary_campinas" else 1)
    for kspace, expected in zip(raw.slices, wanted, strict=True):
        np.testing.assert_allclose(kspace, expected, atol=1e-3)


@BY_NAME
def test_undersampled_files_are_no_ground_truth_and_keep_their_mask(layout: Layout, tmp_path: Path) -> None:
    source = made(tmp_path, layout, coil_images(), LINES)
    with pytest.raises(InputError, match=r"its k-space is undersampled .*no ground truth; .*fedsim reconstruct"):
        list(source.volumes(tmp_path))
    (raw,) = source.raw(tmp_path)
    kspace = next(raw.slices)
    assert is_undersampled(kspace)
    sampled = LINES & (np.arange(20) < 17) if layout.format == "calgary_campinas" else LINES
    np.testing.assert_array_equal(measured(kspace), np.broadcast_to(sampled, (24, 20)))


def cut(images: NDArray[Any], sampled: Lines) -> NDArray[Any]:
    """Images of which only some columns of k-space are measured."""
    kspace = write.transformed(images) * sampled
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, (-2, -1)), norm="ortho"), (-2, -1))


def test_m4raw_averages_repetitions_of_a_subject_or_keeps_them_together(tmp_path: Path) -> None:
    one, other = coil_images(seed=1), coil_images(seed=2)
    for name, images in {"2022061003_T201": one, "2022061003_T202": other, "2022061003_T101": one}.items():
        write.fastmri(tmp_path / "site" / f"{name}.h5", images, acquisition=f"AX{name[11:13]}")
    write.fastmri(tmp_path / "site" / "2022061004_T201.h5", other)
    volumes = of(tmp_path, "m4raw")
    assert [(v.name, v.subject, v.contrast) for v in volumes] == [
        ("2022061003_T1", "2022061003", "AXT1"),
        ("2022061003_T2", "2022061003", "AXT2"),
        ("2022061004_T2", "2022061004", "AXT2"),
    ]
    np.testing.assert_allclose(magnitude(volumes[1].images), magnitude((one + other) / 2), atol=1e-3)
    kept = of(tmp_path, "m4raw", repetitions="keep", contrast="AXT2")
    assert [(v.name, len(v.images)) for v in kept] == [("2022061003_T2", 6), ("2022061004_T2", 3)]
    np.testing.assert_allclose(magnitude(kept[0].images)[::2], magnitude(one), atol=1e-3)
    np.testing.assert_allclose(magnitude(kept[0].images)[1::2], magnitude(other), atol=1e-3)


def test_cmrxrecon_has_frames_of_slices_and_folders_of_centres(tmp_path: Path) -> None:
    images = coil_images(6)
    write.cmrxrecon(tmp_path / "site/Center005/Siemens_30T_Vida/P003/cine_sax.mat", images, frames=3, name="kspace")
    write.cmrxrecon(tmp_path / "site/Center006/Siemens_30T_Vida/P003/cine_lax.mat", images, name="kspace")
    write.cmrxrecon(tmp_path / "site/Center006/Siemens_30T_Vida/P003/cine_lax_mask.mat", images, name="kspace")
    volumes = of(tmp_path, "cmrxrecon")
    assert [v.subject for v in volumes] == ["Center005-Siemens_30T_Vida-P003", "Center006-Siemens_30T_Vida-P003"]
    for volume in volumes:
        np.testing.assert_allclose(magnitude(volume.images), magnitude(images), atol=1e-3)
    assert [v.contrast for v in of(tmp_path, "cmrxrecon", contrast="cine_lax")] == ["cine_lax"]


def test_cmrxrecon_with_one_coil(tmp_path: Path) -> None:
    images = coil_images(4, coils=1)
    write.cmrxrecon(tmp_path / "site/P001/cine_sax.mat", images, frames=2, name="kspace_single_full")
    (volume,) = of(tmp_path, "cmrxrecon")
    np.testing.assert_allclose(volume.images, images[:, 0], atol=1e-3)


def test_slices_and_echoes_can_be_chosen(tmp_path: Path) -> None:
    images = coil_images(5)
    write.skm_tea(tmp_path / "site" / "MTR_005.h5", images)
    volumes = of(tmp_path, "skm_tea", slices=[1, 3])
    assert [(v.name, v.subject, v.contrast) for v in volumes] == [
        ("MTR_005_echo1", "MTR_005", "echo1"), ("MTR_005_echo2", "MTR_005", "echo2"),
    ]  # fmt: skip
    np.testing.assert_allclose(magnitude(volumes[1].images), magnitude(images[1:3]) / 2, atol=1e-3)
    (second,) = of(tmp_path, "skm_tea", contrast="echo2")
    assert second.name == "MTR_005_echo2"
    with pytest.raises(InputError, match=r"MTR_005\.h5: has 5 slices; slices \[2, 9\] needs more"):
        of(tmp_path, "skm_tea", slices=[2, 9])


def test_skm_tea_has_sensitivities(tmp_path: Path) -> None:
    images = coil_images()
    write.skm_tea(tmp_path / "site" / "MTR_005.h5", images)
    assert [v.maps for v in of(tmp_path, "skm_tea")] == [None, None]
    for volume in of(tmp_path, "skm_tea", maps="file"):
        assert volume.maps is not None
        expected = images / np.maximum(magnitude(images)[:, None], 1e-6)
        np.testing.assert_allclose(volume.maps, expected, atol=1e-6)


def test_bart_in_three_dimensions_and_without_a_readout(tmp_path: Path) -> None:
    volume = coil_images(8, height=16, width=12)  # (x, coils, y, z)
    kspace = write.transformed(volume, (0, -2, -1)).transpose(0, 2, 3, 1)
    write.bart(tmp_path / "site" / "volume.cfl", kspace)
    (read,) = of(tmp_path, "bart")
    np.testing.assert_allclose(magnitude(read.images), magnitude(volume), atol=1e-3)
    plane = write.transformed(coil_images(1))[0].transpose(1, 2, 0)[None]  # 1 x H x W x coils, as in ESPIRiT's example
    write.bart(tmp_path / "site" / "volume.cfl", plane)
    (read,) = of(tmp_path, "bart")
    np.testing.assert_allclose(magnitude(read.images), magnitude(coil_images(1)), atol=1e-3)


def test_a_changed_header_of_bart_is_a_changed_site(tmp_path: Path) -> None:
    file = write.bart(tmp_path / "head.cfl", to_bart(write.transformed(coil_images(1))))
    source = TypeAdapter(AnySource).validate_python({"format": "bart", "path": "head.cfl"})
    before = shard_path(source, tmp_path, tmp_path, "native")
    assert shard_path(source, tmp_path, tmp_path, "native") == before
    with file.with_suffix(".hdr").open("a") as header:
        header.write("# Command\nfft\n")
    assert shard_path(source, tmp_path, tmp_path, "native") != before
    assert len(list(source.volumes(tmp_path))) == 1


def test_bart_by_the_name_of_its_header(tmp_path: Path) -> None:
    header = write.bart(tmp_path / "head.cfl", to_bart(write.transformed(coil_images(1)))).with_suffix(".hdr")
    with pytest.raises(InputError, match=r"head.hdr: is the header of a pair; name head.cfl"):
        list(detect(header).volumes(tmp_path))


@pytest.mark.parametrize("axes", ["schw", "cshw", "hwcs", "wcsh"])
def test_numpy_with_declared_axes(axes: str, tmp_path: Path) -> None:
    kspace = write.transformed(coil_images())
    (tmp_path / "site").mkdir()
    np.savez(tmp_path / "site" / "a.npz", kspace=kspace.transpose(["schw".index(a) for a in axes]), other=np.ones(3))
    (volume,) = of(tmp_path, "numpy", axes=axes)
    np.testing.assert_allclose(magnitude(volume.images), magnitude(coil_images()), atol=1e-3)


def test_numpy_images(tmp_path: Path) -> None:
    images = coil_images(coils=1)[:, 0]
    (tmp_path / "site").mkdir()
    np.save(tmp_path / "site" / "real.npy", np.abs(images).astype(np.float64))
    np.save(tmp_path / "site" / "turned.npy", np.asfortranarray(images))
    real, turned = of(tmp_path, "numpy")
    np.testing.assert_allclose(real.images, np.abs(images), atol=1e-4)
    np.testing.assert_array_equal(turned.images, images)
    assert turned.images.dtype == np.complex64
