"""DICOM series written with pydicom: order, rescaling, subjects, files that are no image."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from fedsim.data.dicom import Dicom
from fedsim.errors import InputError

SERIES = generate_uid(entropy_srcs=["one"])
SAGITTAL = [0, 1, 0, 0, 0, -1]
"""Rows to the back, columns to the feet: the normal points to the right, so x falls along it."""


def dataset(pixels: NDArray[np.int16] | None, instance: int, **tags: object) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.SeriesNumber, data.SeriesDescription = SERIES, 5, "Sag DESS"
    data.PatientID, data.InstanceNumber = "Patient^1", instance
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.PixelData = pixels.tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    return data


def write(path: Path, data: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def picture(value: int, shape: tuple[int, int] = (4, 6)) -> NDArray[np.int16]:
    return (np.arange(np.prod(shape)).reshape(shape) + 100 * value).astype(np.int16)


def test_slices_are_sorted_along_their_normal_and_rescaled(tmp_path: Path) -> None:
    for name, place in (("b.dcm", 0), ("a.dcm", 2), ("c.ima", 1), ("sub/IM0001", 3), ("sub/1.2.840.7", 4)):
        tags = {"ImageOrientationPatient": SAGITTAL, "ImagePositionPatient": [-1.5 * place, 7, 9]}
        rescale = {"RescaleSlope": 2, "RescaleIntercept": -10}
        write(tmp_path / "k" / name, dataset(picture(place), 50 - place, **tags, **rescale))
    (volume,) = Dicom(path="k").volumes(tmp_path)
    assert (volume.subject, volume.name, volume.origin) == ("Patient-1", "Patient-1_5_Sag-DESS", "k")
    assert volume.images.dtype == np.float32
    np.testing.assert_array_equal(volume.images, [picture(place) * 2.0 - 10 for place in range(5)])


def test_without_places_the_instance_number_sorts(tmp_path: Path) -> None:
    for name, instance in (("x1.dcm", 10), ("x2.dcm", 9), ("x3.dcm", 11)):
        write(tmp_path / name, dataset(picture(instance), instance))
    (volume,) = Dicom(path=".").volumes(tmp_path)
    np.testing.assert_array_equal(volume.images, [picture(9), picture(10), picture(11)])


def test_series_subjects_and_contrasts(tmp_path: Path) -> None:
    for number, (folder, patient) in enumerate((("p1", "A"), ("p1", "A"), ("p2", ""))):
        described = {"SeriesDescription": f"AX T{number} TSE", "SeriesNumber": number, "PatientID": patient}
        uid = generate_uid(entropy_srcs=[str(number)])
        write(tmp_path / folder / f"{number}.dcm", dataset(picture(number), 1, SeriesInstanceUID=uid, **described))
    every = list(Dicom(path=".").volumes(tmp_path))
    assert [v.name for v in every] == ["A_0_AX-T0-TSE", "A_1_AX-T1-TSE", "p2_2_AX-T2-TSE"]
    assert [v.subject for v in every] == ["A", "A", "p2"]
    assert [v.subject for v in Dicom(path=".", subject="site").volumes(tmp_path)] == ["site"] * 3
    assert [v.name for v in Dicom(path=".", contrast="t2").volumes(tmp_path)] == ["p2_2_AX-T2-TSE"]
    with pytest.raises(InputError, match="no contrast PD; it holds AX T0 TSE, AX T1 TSE, AX T2 TSE"):
        list(Dicom(path=".", contrast="PD").volumes(tmp_path))


def test_files_without_pixels_or_of_another_kind_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", dataset(picture(1), 1))
    write(tmp_path / "report.dcm", dataset(None, 2))
    (tmp_path / "LICENSE").write_text("text")
    (volume,) = Dicom(path=".").volumes(tmp_path)
    assert len(volume.images) == 1
    write(tmp_path / "none" / "report.dcm", dataset(None, 2))
    with pytest.raises(InputError, match="its DICOM files hold no pixel data"):
        list(Dicom(path="none").volumes(tmp_path))


def test_mixed_sizes_frames_and_colours_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", dataset(picture(1), 1))
    write(tmp_path / "b.dcm", dataset(picture(2, (4, 8)), 2))
    with pytest.raises(InputError, match=r"b\.dcm: is \(4, 8\), but its series began with \(4, 6\)"):
        list(Dicom(path=".").volumes(tmp_path))
    write(tmp_path / "b.dcm", dataset(picture(2), 2, NumberOfFrames=2, Rows=2))
    with pytest.raises(InputError, match=r"b\.dcm: holds pixels \(2, 2, 6\)"):
        list(Dicom(path=".").volumes(tmp_path))


def test_damaged_files_and_missing_folders(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "a.dcm", dataset(picture(1, (64, 64)), 1))
    whole = path.read_bytes()
    for damaged in (whole[:-3000], whole[:680], b"no DICOM at all"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.dcm: cannot be read .*; expected a DICOM file") as caught:
            list(Dicom(path="a").volumes(tmp_path))
        assert "\n" not in str(caught.value)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "LICENSE").write_text("text")
    for folder in ("b", "c"):
        with pytest.raises(InputError, match=r"holds no DICOM file|no such file"):
            Dicom(path=folder).files(tmp_path)
