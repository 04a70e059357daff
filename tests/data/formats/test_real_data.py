"""The importers on real images of nine sites: counts, phase, order."""

from pathlib import Path

import numpy as np
import pytest

from fedsim.data.formats.dicom import Dicom
from fedsim.data.formats.matlab import Matlab
from fedsim.data.formats.nifti import Nifti
from fedsim.data.formats.tiff import ImageFolder
from fedsim.data.sources import detect

TCGA = [("CS", 10, 104), ("DU", 10, 120), ("FG", 7, 84), ("HT", 10, 111)]
FORMATS = [("tcga-lgg", "tiff"), ("ukat-kidney", "nifti"), ("knee-dess", "dicom"), ("cardiac-cine", "matlab")]


@pytest.mark.slow
@pytest.mark.parametrize(("hospital", "subjects", "slices"), TCGA)
def test_tcga(real_data: Path, hospital: str, subjects: int, slices: int) -> None:
    volumes = list(ImageFolder(format="tiff", path=f"tcga-lgg/{hospital}", channel=1).volumes(real_data))
    assert len({volume.subject for volume in volumes}) == len(volumes) == subjects
    assert sum(len(volume.images) for volume in volumes) == slices
    assert all(volume.subject.startswith(f"TCGA_{hospital}_") for volume in volumes)
    assert {volume.images.shape[1:] for volume in volumes} == {(256, 256)}


@pytest.mark.parametrize(
    ("vendor", "n_volumes", "shapes"),
    [
        ("ge", 2, {(18, 256, 256)}),
        ("philips", 6, {(9, 128, 128)}),
        ("siemens", 10, {(11, 128, 128), (9, 128, 128)}),
    ],
)
def test_kidneys_are_complex(real_data: Path, vendor: str, n_volumes: int, shapes: set[tuple[int, ...]]) -> None:
    source = Nifti(path=f"ukat-kidney/{vendor}")
    volumes = list(source.volumes(real_data))
    assert len(source.files(real_data)) == 2 * n_volumes == 2 * len(volumes)
    assert {volume.images.shape for volume in volumes} == shapes
    assert {volume.subject for volume in volumes} == {vendor}
    for volume in volumes:
        assert volume.images.dtype == np.complex64
        angles = np.angle(volume.images)
        assert angles.min() < -3.1  # the phase fills the circle, so its unit is right
        assert angles.max() > 3.1
        tissue = np.abs(volume.images) > np.quantile(np.abs(volume.images), 0.8)
        steps = np.abs(np.angle(volume.images[:, 1:] * volume.images[:, :-1].conj()))[tissue[:, 1:] & tissue[:, :-1]]
        assert np.median(steps) < 0.3  # [rad] between rows: smooth, and
        assert np.mean(steps > 1) < 0.1  # without jumps where the phase wraps


def test_kidney_magnitudes_and_echoes(real_data: Path) -> None:
    plain = list(Nifti(path="ukat-kidney/ge", phase="none", contrast="e2").volumes(real_data))
    (both,) = Nifti(path="ukat-kidney/ge", contrast="e2").volumes(real_data)
    assert [volume.name for volume in plain] == [both.name]
    np.testing.assert_allclose(np.abs(both.images), plain[0].images, rtol=1e-5)


def test_knee(real_data: Path) -> None:
    (volume,) = Dicom(path="knee-dess").volumes(real_data)
    assert (volume.subject, volume.images.shape, volume.images.dtype) == ("knee-dess", (43, 512, 512), np.float32)
    profile = volume.images.reshape(43, -1)
    neighbours = [np.corrcoef(profile[i], profile[i + 1])[0, 1] for i in range(42)]
    assert min(neighbours) > 0.8  # sorted: every slice looks like the next


def test_cardiac(real_data: Path) -> None:
    (volume,) = Matlab(path="cardiac-cine", subject="site").volumes(real_data)
    assert (volume.subject, volume.images.shape) == ("site", (100, 256, 256))
    assert 0 <= volume.images.min() < volume.images.max() <= 1


@pytest.mark.parametrize(("path", "name"), FORMATS)
def test_detect(real_data: Path, path: str, name: str) -> None:
    assert detect(real_data / path).model_dump()["format"] == name


def test_a_head_measured_with_eight_coils(real_data: Path) -> None:
    """BART's format; the skull's bright ring lies in the middle, not at the edge or in the corners."""
    root = real_data.parent / "raw"
    if not (root / "brain-8coil.cfl").exists():
        pytest.skip(f"no brain-8coil.cfl in {root}")
    source = detect(root / "brain-8coil.cfl")
    assert source.format == "bart"
    (volume,) = source.volumes(root)
    assert (volume.images.shape, volume.coils) == ((1, 8, 230, 180), 8)
    combined = np.linalg.norm(volume.images[0], axis=0)
    assert combined[40:190, 30:150].mean() > 5 * combined[:10].mean()
