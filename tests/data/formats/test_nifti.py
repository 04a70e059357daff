"""NIfTI files: phase pairs, units, names of BraTS and IXI, orientation."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from fedsim.core.errors import InputError
from fedsim.data.formats.nifti import Nifti

LPI = np.diag([-1.0, -1.0, -1.0, 1.0])
"""Indices that grow to the left, the back and the feet: already upright."""


def write(path: Path, values: NDArray[Any], affine: NDArray[np.float64] = LPI) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def numbered(*shape: int) -> NDArray[np.float32]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def pairs(*shape: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    phase = rng.uniform(-3.14, 3.14, shape).astype(np.float32)
    phase[0, 0, 0] = -3.14
    return rng.uniform(1, 100, shape).astype(np.float32), phase


def names(source: Nifti, root: Path) -> list[str]:
    return [volume.name for volume in source.volumes(root)]


def patient(affine_columns: str) -> NDArray[np.float64]:
    """An affine whose axes point to the given directions, such as LSP."""
    axes = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, letter in enumerate(affine_columns):
        row, sign = axes[letter]
        affine[row, column] = 2.0 * sign
    return affine


@pytest.mark.parametrize(
    ("codes", "axis", "towards"),
    [
        ("RAS", 2, "SPL"),  # axial
        ("LPS", 2, "SPL"),  # axial, BraTS
        ("LSP", 2, "PIL"),  # coronal
        ("RSA", 2, "AIL"),
        ("PSR", 2, "RIP"),  # sagittal, IXI T1
        ("RAS", 0, "RIP"),
        ("RAS", 1, "AIL"),
    ],
)
def test_images_are_upright_and_slices_keep_their_order(tmp_path: Path, codes: str, axis: int, towards: str) -> None:
    values = numbered(3, 4, 5)
    write(tmp_path / "a.nii", values, patient(codes))
    (volume,) = Nifti(path="a.nii", axis=axis).volumes(tmp_path)
    reference = nibabel.Nifti1Image(values, patient(codes))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(reference.affine), nibabel.orientations.axcodes2ornt(towards)
    )
    np.testing.assert_array_equal(volume.images, nibabel.orientations.apply_orientation(values, turn))
    assert volume.images.dtype == np.float32


def test_oblique_axes_count_as_the_nearest(tmp_path: Path) -> None:
    turned = LPI.copy()
    turned[:2, :2] = -np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    values = numbered(3, 4, 5)
    write(tmp_path / "a.nii.gz", values, turned)
    (volume,) = Nifti(path="a.nii.gz").volumes(tmp_path)
    np.testing.assert_array_equal(volume.images, values.transpose(2, 1, 0))


@pytest.mark.parametrize(("scale", "unit"), [(1.0, "radians"), (1000.0, "milliradians"), (4096 / np.pi, "siemens")])
def test_phase_units(tmp_path: Path, scale: float, unit: str) -> None:
    magnitude, phase = pairs(4, 5, 3)
    write(tmp_path / "x_e1.nii.gz", magnitude)
    write(tmp_path / "x_e1_ph.nii.gz", phase * np.float32(scale))
    expected = (magnitude * np.exp(1j * phase)).transpose(2, 1, 0)
    for setting in ("auto", unit):
        (volume,) = Nifti(path=".", phase=setting).volumes(tmp_path)
        assert volume.images.dtype == np.complex64
        np.testing.assert_allclose(volume.images, expected, atol=2e-3)
    (plain,) = Nifti(path=".", phase="none").volumes(tmp_path)
    assert plain.images.dtype == np.float32
    np.testing.assert_array_equal(plain.images, magnitude.transpose(2, 1, 0))


def test_slope_and_intercept_are_applied_before_the_unit_is_told(tmp_path: Path) -> None:
    magnitude, _ = pairs(4, 5, 3)
    stored = np.full((4, 5, 3), 2560, np.int16)  # 2 * 2560 - 4096 = 1024, a quarter of pi
    stored[0, 0, 0] = 0
    image = nibabel.Nifti1Image(stored, LPI)
    image.header.set_slope_inter(2, -4096)
    write(tmp_path / "x.nii", magnitude)
    nibabel.save(image, tmp_path / "x_ph.nii")
    (volume,) = Nifti(path=".").volumes(tmp_path)
    np.testing.assert_allclose(np.angle(volume.images[1]), np.pi / 4, atol=2e-3)


@pytest.mark.parametrize("values", [(0.0, 4095.0), (-5000.0, 5000.0)])
def test_a_phase_of_unknown_unit_is_refused(tmp_path: Path, values: tuple[float, float]) -> None:
    write(tmp_path / "x.nii", numbered(2, 2, 2))
    write(tmp_path / "x_ph.nii", np.array([*values] * 4, np.float32).reshape(2, 2, 2))
    with pytest.raises(InputError, match=r"x_ph\.nii: .*unknown unit; set phase"):
        list(Nifti(path=".").volumes(tmp_path))


def test_pairs_by_name_and_series_number(tmp_path: Path) -> None:
    magnitude, phase = pairs(2, 2, 2)
    for name in ("00720__Magnitude_B0_e1", "00720__Magnitude_B0_e2", "00019__b_e1", "00029__b_e1", "01001__p"):
        write(tmp_path / "k" / f"{name}.nii.gz", magnitude)
    for name in ("00721__Phase_B0_e1", "00721__Phase_B0_e2", "00020__b_e1_ph", "00030__b_e1_ph", "01001__p_ph"):
        write(tmp_path / "k" / f"{name}.nii.gz", phase)
    found = [path.name.removesuffix(".nii.gz") for path in Nifti(path="k").files(tmp_path)]
    assert found == [
        *("00019__b_e1", "00020__b_e1_ph", "00029__b_e1", "00030__b_e1_ph"),
        *("00720__Magnitude_B0_e1", "00721__Phase_B0_e1", "00720__Magnitude_B0_e2", "00721__Phase_B0_e2"),
        *("01001__p", "01001__p_ph"),
    ]
    assert names(Nifti(path="k", contrast="e2"), tmp_path) == ["00720__Magnitude_B0_e2"]
    assert {volume.subject for volume in Nifti(path="k").volumes(tmp_path)} == {"k"}


def test_magnitudes_without_phase(tmp_path: Path) -> None:
    magnitude, phase = pairs(2, 2, 2)
    write(tmp_path / "19_x.nii", magnitude)
    write(tmp_path / "20_x.nii", magnitude)
    write(tmp_path / "20_x_ph.nii", phase)
    lone, paired = Nifti(path=".").volumes(tmp_path)
    assert (lone.images.dtype, paired.images.dtype) == (np.float32, np.complex64)
    with pytest.raises(InputError, match=r"19_x\.nii: has no phase file beside it"):
        list(Nifti(path=".", phase="radians").volumes(tmp_path))
    write(tmp_path / "only" / "20_x_ph.nii", phase)
    with pytest.raises(InputError, match="holds no magnitude file"):
        Nifti(path="only").files(tmp_path)
    write(tmp_path / "20_x_ph.nii", phase[:1])
    with pytest.raises(InputError, match=r"20_x_ph\.nii: is \(1, 2, 2\), but its magnitude"):
        list(Nifti(path=".").volumes(tmp_path))


def test_brats(tmp_path: Path) -> None:
    for case in ("BraTS20_Training_001", "BraTS20_Training_002"):
        for contrast in ("t1", "t1ce", "t2", "flair", "seg"):
            write(tmp_path / "b" / case / f"{case}_{contrast}.nii.gz", numbered(4, 4, 6), patient("LPS"))
    assert len(names(Nifti(path="b"), tmp_path)) == 8
    picked = list(Nifti(path="b", contrast=["t1", "flair"], slices=(2, 5)).volumes(tmp_path))
    assert [v.name.removeprefix("BraTS20_Training_") for v in picked] == ["001_flair", "001_t1", "002_flair", "002_t1"]
    assert [v.subject for v in picked] == ["BraTS20_Training_001"] * 2 + ["BraTS20_Training_002"] * 2
    np.testing.assert_array_equal(picked[0].images, numbered(4, 4, 6).transpose(2, 1, 0)[2:5])
    with pytest.raises(InputError, match=r"has 6 slices along axis 2; slices \[4, 7\] needs more"):
        list(Nifti(path="b", slices=(4, 7)).volumes(tmp_path))


def test_brats_2023_keeps_the_time_points_of_a_patient_together(tmp_path: Path) -> None:
    for case in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"):
        for contrast in ("t1n", "t1c", "t2w", "t2f", "seg"):
            write(tmp_path / case / f"{case}-{contrast}.nii.gz", numbered(2, 2, 2))
    volumes = list(Nifti(path=".", contrast="t2f").volumes(tmp_path))
    assert [v.subject for v in volumes] == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-GLI-00006"]
    assert volumes[1].name == "BraTS-GLI-00005-001-t2f"


def test_ixi(tmp_path: Path) -> None:
    for name in ("IXI002-Guys-0828-T1", "IXI002-Guys-0828-T2", "IXI012-HH-1211-T1", "IXI035-IOP-0873-T1"):
        write(tmp_path / f"{name}.nii.gz", numbered(2, 2, 2))
    assert [v.subject for v in Nifti(path=".", contrast="T1").volumes(tmp_path)] == ["IXI002", "IXI012", "IXI035"]
    assert names(Nifti(path=".", center="HH"), tmp_path) == ["IXI012-HH-1211-T1"]
    (volume,) = Nifti(path=".", subject="file", center="IOP").volumes(tmp_path)
    assert volume.subject == "IXI035"
    with pytest.raises(InputError, match="no contrast PD; it holds IXI002-Guys-0828-T1, "):
        Nifti(path=".", contrast="PD").files(tmp_path)
    write(tmp_path / "other" / "a.nii", numbered(2, 2, 2))
    with pytest.raises(InputError, match="holds no IXI file of HH"):
        Nifti(path="other", center="HH").files(tmp_path)


def test_ranks(tmp_path: Path) -> None:
    write(tmp_path / "one.nii", numbered(3, 4, 5, 1))
    write(tmp_path / "more.nii", numbered(3, 4, 5, 2))
    (volume,) = Nifti(path="one.nii").volumes(tmp_path)
    assert volume.images.shape == (5, 4, 3)
    with pytest.raises(InputError, match=r"more\.nii: is 4-D \(3, 4, 5, 2\)"):
        list(Nifti(path="more.nii").volumes(tmp_path))


def test_complex_values_stay_complex(tmp_path: Path) -> None:
    values = (numbered(2, 3, 4) * (1 + 2j)).astype(np.complex64)
    write(tmp_path / "a.nii", values)
    (volume,) = Nifti(path="a.nii").volumes(tmp_path)
    assert volume.images.dtype == np.complex64
    np.testing.assert_array_equal(volume.images, values.transpose(2, 1, 0))


def test_bad_files_and_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"a\.nii\.gz: cannot be read .*; expected a NIfTI file"):
        list(Nifti(path="a.nii.gz").volumes(tmp_path))
    (tmp_path / "b.nii").write_text("no image")
    with pytest.raises(InputError, match=r"b\.nii: cannot be read"):
        list(Nifti(path="b.nii").volumes(tmp_path))
    for keys in ({"slices": [5, 5]}, {"slices": [-1, 5]}, {"contrast": []}, {"axis": 3}, {"path": "../b"}):
        with pytest.raises(ValidationError):
            Nifti.model_validate({"path": ".", **keys})


def test_a_volumes_contrast_is_what_its_name_says(tmp_path: Path) -> None:
    for name in ("A/A_t1.nii", "A/A_flair.nii", "B/scan.nii", "C/scan_001.nii"):
        write(tmp_path / "site" / name, numbered(4, 4, 2))
    found = {v.name: v.contrast for v in Nifti(path="site").volumes(tmp_path)}
    assert found == {"A_t1": "t1", "A_flair": "flair", "scan": "", "scan_001": ""}
    assert [v.contrast for v in Nifti(path="site", contrast=["FLAIR"]).volumes(tmp_path)] == ["FLAIR"]


def test_volumes_of_a_4d_file_are_chosen_by_number_or_name(tmp_path: Path) -> None:
    values = numbered(3, 4, 5, 4)
    write(tmp_path / "BRATS_001.nii.gz", values)
    with pytest.raises(
        InputError, match=r"is 4-D \(3, 4, 5, 4\); set volume to one of 0 to 3, to a list of them, or to all"
    ):
        list(Nifti(path=".").volumes(tmp_path))
    names = {0: "FLAIR", 1: "T1w"}
    for volume, expected in ((2, [2]), ("t1w", [1]), (["FLAIR", 3], [0, 3]), ("all", [0, 1, 2, 3])):
        read = list(Nifti(path=".", volume=volume, volume_names=names).volumes(tmp_path))
        assert [v.contrast for v in read] == [names.get(number, f"volume {number}") for number in expected]
        for one, number in zip(read, expected, strict=True):
            np.testing.assert_array_equal(one.images, values[..., number].transpose(2, 1, 0))
    assert [v.name for v in read] == ["BRATS_001_FLAIR", "BRATS_001_T1w", "BRATS_001_v2", "BRATS_001_v3"]
    with pytest.raises(InputError, match="has 4 volumes; volume 4 counts from 0"):
        list(Nifti(path=".", volume=4).volumes(tmp_path))
    with pytest.raises(ValidationError, match="T9"):
        Nifti.model_validate({"path": ".", "volume": "T9"})


def test_2d_files_are_the_slices_of_their_folder(tmp_path: Path) -> None:
    values = numbered(3, 4, 11)
    for number in range(11):
        write(tmp_path / "s0" / f"slice{number}.nii.gz", values[..., number])
    write(tmp_path / "s1" / "slice0.nii.gz", values[..., 0])
    first, second = Nifti(path=".").volumes(tmp_path)
    assert (first.subject, first.name, first.origin, second.subject) == ("s0", "s0", "s0", "s1")
    np.testing.assert_array_equal(first.images, values.transpose(2, 1, 0))
    assert len(list(Nifti(path=".", subject="file").volumes(tmp_path))) == 12
